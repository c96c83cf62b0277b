"""An operator for some namespaces needs no ClusterRole and leaves the others alone."""

import json
import subprocess
from collections.abc import Iterator

import pytest
import yaml

import kube
from kube import ROOT, Refused, kubectl

SYSTEM = "slipway-system"
CHART = ROOT / "charts" / "slipway"


def rendered(namespace: str, *watched: str) -> list[dict]:
    """The objects of the chart with the images of the installed release."""
    values = subprocess.run(["helm", "get", "values", "slipway", "-n", SYSTEM, "-o", "json"], capture_output=True, text=True, check=True)
    command = ["helm", "template", "scoped", str(CHART), "-n", namespace, "-f", "-"]
    if watched:
        command += ["--set", f"watchNamespaces={{{','.join(watched)}}}"]
    text = subprocess.run(command, input=values.stdout, capture_output=True, text=True, check=True).stdout
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.fixture
def without_operator() -> Iterator[None]:
    """The operator of all namespaces is away during the test."""
    operator = ["-n", SYSTEM, "deployment/slipway-operator"]
    replicas = json.loads(kubectl("get", *operator, "-o", "json"))["spec"]["replicas"]
    kubectl("scale", *operator, "--replicas=0")
    yield
    kubectl("scale", *operator, f"--replicas={replicas}")
    kubectl("rollout", "status", *operator, "--timeout=90s")


def test_only_the_crd_belongs_to_the_cluster() -> None:
    of_cluster = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    kinds = {document["kind"] for document in rendered("system", "a", "b")}
    assert kinds & of_cluster == {"CustomResourceDefinition"}
    roles = [d["metadata"]["namespace"] for d in rendered("system", "a", "b") if d["kind"] == "RoleBinding"]
    assert sorted(roles) == ["a", "b", "system"]
    assert of_cluster <= {document["kind"] for document in rendered("system")}


@pytest.fixture
def other(namespace: str) -> Iterator[str]:
    """A second namespace."""
    name = f"{namespace}-other"
    kubectl("create", "namespace", name)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def test_an_operator_of_one_namespace_serves_it_and_no_other(namespace: str, other: str, hub, without_operator: None) -> None:
    objects = [document for document in rendered(other, namespace) if document["kind"] != "CustomResourceDefinition"]
    for document in objects:
        kubectl("apply", "-n", document["metadata"]["namespace"], "-f", "-", stdin=yaml.safe_dump(document))
    kubectl("rollout", "status", "-n", other, "deployment/scoped-operator", "--timeout=60s")
    mdep = kube.model_deployment("tiny", "slipway/tiny-trained", hub.endpoint)
    kube.apply(mdep, other)
    kube.apply(mdep, namespace)
    kube.until_ready("tiny", namespace)
    assert "conditions" not in kube.get("mdep", "tiny", other).get("status", {})
    account = f"system:serviceaccount:{other}:scoped-operator"
    for where in (["-n", other], ["--all-namespaces"]):
        with pytest.raises(Refused):
            kubectl("auth", "can-i", "list", "modeldeployments.slipway.dev", "--as", account, "--quiet", *where)
