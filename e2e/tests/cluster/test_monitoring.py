"""The dashboard and the alerts of the chart name metrics that exist."""

import json
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import openai
import promql_parser
import pytest
import yaml

import kube
from conftest import client_of
from kube import ROOT

CHART = ROOT / "charts" / "slipway"
GATEWAY = "http://slipway-gateway.slipway-system.svc"
SUFFIXES = {"counter": "_total", "histogram": "_bucket", "gauge": ""}


def documents() -> list[dict]:
    """What the chart renders with everything for monitoring enabled."""
    values = ("podMonitor", "prometheusRule", "grafanaDashboard")
    enabled = [argument for value in values for argument in ("--set", f"{value}.enabled=true")]
    command = ["helm", "template", "slipway", str(CHART), "-n", "slipway-system", *enabled]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [document for document in yaml.safe_load_all(rendered) if document]


def expressions() -> Iterator[str]:
    """Every query of the alerts and of the dashboard."""
    of_kind = {kind: [d for d in documents() if d["kind"] == kind] for kind in ("PrometheusRule", "ConfigMap")}
    (rules,) = of_kind["PrometheusRule"]
    for rule in rules["spec"]["groups"][0]["rules"]:
        assert rule["annotations"].keys() == {"summary", "description"}, rule
        yield rule["expr"]
    (dashboard,) = (d for d in of_kind["ConfigMap"] if "slipway.json" in d["data"])
    for panel in json.loads(dashboard["data"]["slipway.json"])["panels"]:
        yield from (target["expr"].replace("$__rate_interval", "5m") for target in panel.get("targets", []))


def metrics(address: str) -> set[str]:
    """The names of the metrics of an address, as queries name them."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    return {name + SUFFIXES[kind] for name, kind in found}


def address_of(namespace: str, selector: str, port: int) -> str:
    """A running pod's address."""
    pods = kube.items("pod", namespace, selector)
    pod = next(pod for pod in pods if pod["status"].get("podIP") and not pod["metadata"].get("deletionTimestamp"))
    return f"{pod['status']['podIP']}:{port}"


def test_queries_name_metrics_that_exist(namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("seen", "slipway/tiny-trained", hub.endpoint), namespace)
    ready = kube.until_ready("seen", namespace)
    # Counters exist once they have counted.
    client = client_of(ready)
    client.completions.create(model=ready["status"]["modelName"], prompt="lion", max_tokens=2)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=ready["status"]["modelName"], prompt="lion", max_tokens=-2)
    for path in (f"/{namespace}/seen/v1/models", "/none/none/v1/models"):
        try:
            urllib.request.urlopen(GATEWAY + path, timeout=30).read()
        except urllib.error.HTTPError as refused:
            assert refused.code == 404

    exist = metrics(address_of(namespace, "slipway.dev/model-deployment=seen", 8001))
    exist |= metrics(address_of("slipway-system", "app.kubernetes.io/name=slipway-operator", 8080))
    for pod in kube.items("pod", "slipway-system", "app.kubernetes.io/name=slipway-gateway"):
        exist |= metrics(f"{pod['status']['podIP']}:8001")
    # Nothing was scaled here, so it may not have counted.
    exist.add("slipway_operator_scalings_total")
    queries = list(expressions())
    assert len(queries) > 25
    for query in queries:
        assert promql_parser.parse(query) is not None
        # Braces hold labels, whose values may look like names.
        names = re.findall(r"\b(?:vllm:|slipway_)\w+", re.sub(r"\{[^}]*\}|by \([^)]*\)", "", query))
        assert names and set(names) <= exist, f"{query}: {set(names) - exist}"


def test_pods_are_scraped_where_their_metrics_are() -> None:
    rendered = documents()
    monitors = {d["metadata"]["name"]: d["spec"] for d in rendered if d["kind"] == "PodMonitor"}
    assert monitors.keys() == {"slipway", "slipway-runtime"}
    match = monitors["slipway"]["selector"]
    for name in ("slipway-operator", "slipway-gateway"):
        (pod,) = (d["spec"]["template"] for d in rendered if d["kind"] == "Deployment" and d["metadata"]["name"] == name)
        labels = pod["metadata"]["labels"]
        assert match["matchLabels"].items() <= labels.items()
        assert labels["app.kubernetes.io/component"] in match["matchExpressions"][0]["values"]
        ports = {port["name"] for container in pod["spec"]["containers"] for port in container["ports"]}
        scraped = {endpoint["port"] for endpoint in monitors["slipway"]["podMetricsEndpoints"]}
        assert ports & scraped
