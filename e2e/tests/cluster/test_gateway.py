"""One address for all models: routing, load, waiting for replicas, and what becomes of requests when pods end."""

import json
import re
import ssl
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import openai
import pytest
import yaml

import chart
import kube
import models
import wait
from kube import kubectl

GATEWAY = "http://slipway-gateway.slipway-system.svc"
CHAT = models.chats()[0]


def client(path: str = "", key: str = "none") -> openai.OpenAI:
    """The official client on the gateway."""
    return openai.OpenAI(base_url=f"{GATEWAY}{path}/v1", api_key=key, max_retries=0, timeout=120)


def ask(of: openai.OpenAI, model: str) -> str:
    answer = of.chat.completions.create(model=model, messages=CHAT.openai_messages(), temperature=0)
    return answer.choices[0].message.content


def deploy(name: str, namespace: str, hub, **spec: object) -> str:
    """A ModelDeployment with a name of the model that no other test has; returns that name."""
    mdep = kube.model_deployment(name, "slipway/tiny-trained", hub.endpoint)
    served = f"{namespace}-{name}"
    mdep["spec"]["model"]["servedModelName"] = [served]
    mdep["spec"].update(spec)
    kube.apply(mdep, namespace)
    return served


def known(served: str) -> None:
    """Waits until the gateway lists the model."""
    wait.until(f"{served} is listed", lambda: _listed(served), 60)


def _listed(served: str) -> bool:
    assert served in [model.id for model in client().models.list()]
    return True


def test_one_address_leads_to_every_model(namespace: str, hub) -> None:
    kubectl("create", "secret", "generic", "keys", "-n", namespace, "--from-literal=OPENAI_API_KEYS=right")
    open_model = deploy("open", namespace, hub)
    closed_model = deploy("closed", namespace, hub, auth={"apiKeysSecretRef": {"name": "keys"}})
    for name in ("open", "closed"):
        kube.until_ready(name, namespace)
    known(open_model)
    assert ask(client(), open_model) == CHAT.answer
    stream = client().chat.completions.create(
        model=open_model, messages=CHAT.openai_messages(), temperature=0, stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in stream) == CHAT.answer
    assert ask(client(f"/{namespace}/open"), open_model) == CHAT.answer

    with pytest.raises(openai.AuthenticationError):
        ask(client(), closed_model)
    assert ask(client(key="right"), closed_model) == CHAT.answer
    assert closed_model not in [model.id for model in client().models.list()]
    assert closed_model in [model.id for model in client(key="right").models.list()]

    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client(), "no-such-model")
    assert "no ModelDeployment serves the model 'no-such-model'" in str(unknown.value)


def test_a_job_is_found_whichever_replica_has_it(namespace: str, hub) -> None:
    deploy("jobs", namespace, hub, replicas=2)
    kube.until_ready("jobs", namespace)
    for _ in range(4):
        job = _post(f"/{namespace}/jobs/v2/x/run", {"input": {"prompt": "Hello", "sampling_params": {"max_tokens": 4}}})
        done = wait.until("the job is done", lambda: _completed(f"/{namespace}/jobs/v2/x/status/{job['id']}"), 60)
        assert done["output"]


def _completed(path: str) -> dict:
    with urllib.request.urlopen(GATEWAY + path, timeout=30) as answer:
        status = json.load(answer)
    assert status["status"] == "COMPLETED", status
    return status


def _post(path: str, body: object) -> dict:
    request = urllib.request.Request(
        GATEWAY + path, json.dumps(body).encode(), {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_a_request_waits_for_the_first_replica(namespace: str, hub) -> None:
    served = deploy("late", namespace, hub, replicas=0)
    wait.until("it is at zero", lambda: kube.is_ready("late", namespace, "ScaledToZero"), 60)

    def at_zero() -> bool:
        with pytest.raises(openai.InternalServerError) as refused:
            ask(client(), served)
        assert "has 0 replicas" in str(refused.value)
        return True

    wait.until("the gateway knows that it is at zero", at_zero, 30)
    kubectl("scale", "mdep", "late", "-n", namespace, "--replicas=1")

    def waits_for_it() -> str:
        try:
            return ask(client(), served)
        except openai.InternalServerError as refused:
            # Until the gateway has seen the new number.
            raise AssertionError("at zero") from refused

    assert wait.until("the request waits for the replica", waits_for_it, 120) == CHAT.answer


def test_no_request_fails_while_replicas_are_replaced(namespace: str, hub) -> None:
    served = deploy("busy", namespace, hub, replicas=2)
    kube.until_ready("busy", namespace)
    known(served)
    stop = threading.Event()
    failures: list[str] = []
    answers: list[str] = []

    def traffic() -> None:
        of = client()
        while not stop.is_set():
            try:
                answers.append(ask(of, served))
            except openai.OpenAIError as err:
                failures.append(repr(err))

    threads = [threading.Thread(target=traffic) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        kubectl("patch", "mdep", "busy", "-n", namespace, "--type=merge", "-p", '{"spec":{"env":[{"name":"MAX_NUM_SEQS","value":"9"}]}}')
        kube.until_ready("busy", namespace, 180)
        pods = kube.items("pod", namespace, "slipway.dev/model-deployment=busy")
        kubectl("delete", "pod", pods[0]["metadata"]["name"], "-n", namespace)
        kube.until_ready("busy", namespace, 180)
        kubectl("rollout", "restart", "deployment/slipway-gateway", "-n", "slipway-system")
        kubectl("rollout", "status", "deployment/slipway-gateway", "-n", "slipway-system", "--timeout=100s")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures, failures[:3]
    assert len(answers) > 20 and set(answers) == {CHAT.answer}


def gateway_of_its_own(namespace: str, port: int = 80, **values: object) -> str:
    """A gateway of this namespace alone, with one replica and these values of the chart; returns the host."""
    values = {"watchNamespaces": [namespace], "gateway": {"replicas": 1, "service": {"port": port}, **values}}
    for document in chart.rendered("edge", namespace, **values):
        if document["metadata"]["name"] == "edge-gateway":
            kubectl("apply", "-n", document["metadata"]["namespace"], "-f", "-", stdin=yaml.safe_dump(document))
    kubectl("rollout", "status", "-n", namespace, "deployment/edge-gateway", "--timeout=90s")
    host = f"edge-gateway.{namespace}.svc"
    wait.until_listens(host, port)
    return host


def used(namespace: str, what: str) -> dict[str, int]:
    """A metric of usage of the namespace's own gateway, by key."""
    (pod,) = kube.items("pod", namespace, "app.kubernetes.io/name=slipway-gateway")
    with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8001/metrics", timeout=30) as answer:
        text = answer.read().decode()
    assert "right" not in text
    found = re.findall(rf'^slipway_gateway_usage_{what}_total{{.*key="(.*)"}} (\d+)$', text, re.MULTILINE)
    return {key: int(value) for key, value in found}


def test_usage_is_counted_by_key_and_limited_without_a_restart(namespace: str, hub) -> None:
    kubectl("create", "secret", "generic", "keys", "-n", namespace, "--from-literal=OPENAI_API_KEYS=right")
    served = deploy("closed", namespace, hub, auth={"apiKeysSecretRef": {"name": "keys"}})
    host = gateway_of_its_own(namespace)
    kube.until_ready("closed", namespace)
    of = openai.OpenAI(base_url=f"http://{host}/v1", api_key="right", max_retries=0, timeout=60)
    wait.until(f"{served} is listed", lambda: [m.id for m in of.models.list()] == [served] or None, 60)

    request = {"model": served, "messages": CHAT.openai_messages(), "temperature": 0}
    usage = of.chat.completions.create(**request).usage
    chunks = list(of.chat.completions.create(**request, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks), "the client did not request usage"
    (key,) = used(namespace, "requests")
    assert re.fullmatch("[0-9a-f]{32}", key)
    expected = [{key: 2}, {key: 2 * usage.prompt_tokens}, {key: 2 * usage.completion_tokens}]
    counted = ("requests", "prompt_tokens", "completion_tokens")
    wait.until("usage is counted", lambda: [used(namespace, what) for what in counted] == expected, 10)

    limits = yaml.safe_dump({"keys": [{"name": "team", "hashes": [key], "requestsPerMinute": 2}]})
    patch = json.dumps({"data": {"limits.yaml": limits}})
    kubectl("patch", "configmap", "edge-gateway", "-n", namespace, "--type=merge", "-p", patch)

    def is_refused() -> openai.RateLimitError:
        try:
            for _ in range(3):
                of.chat.completions.create(**request)
        except openai.RateLimitError as refused:
            return refused
        raise AssertionError("three requests were answered")

    refused = wait.until("the limit is in effect", is_refused, 180, 2)
    assert refused.code == "rate_limit_exceeded" and "team has used its 2 requests" in str(refused)
    assert 1 <= int(refused.response.headers["retry-after"]) <= 30
    assert refused.response.headers["x-ratelimit-limit-requests"] == "2"


def certificate(folder: Path, serial: int, host: str) -> list[str]:
    """A new certificate for a host, as arguments of `kubectl create secret tls`."""
    (key, cert) = (folder / f"{serial}.key", folder / f"{serial}.crt")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=edge", "-addext", f"subjectAltName=DNS:{host}", "-set_serial", str(serial), "-days", "2"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return [f"--cert={cert}", f"--key={key}"]


def test_a_renewed_certificate_is_served_without_a_restart(namespace: str, tmp_path: Path) -> None:
    host = f"edge-gateway.{namespace}.svc"
    kubectl("create", "secret", "tls", "edge", "-n", namespace, *certificate(tmp_path, 1, host))
    gateway_of_its_own(namespace, 443, tls={"secretName": "edge"})

    def trusts(serial: int) -> bool:
        context = ssl.create_default_context(cafile=str(tmp_path / f"{serial}.crt"))
        try:
            with urllib.request.urlopen(f"https://{host}/v1/models", timeout=10, context=context) as answer:
                return json.load(answer)["object"] == "list"
        except urllib.error.URLError as refused:
            raise AssertionError(f"certificate {serial}") from refused

    assert wait.until("TLS is served", lambda: trusts(1), 30)
    renewed = kubectl("create", "secret", "tls", "edge", "-n", namespace, *certificate(tmp_path, 2, host), "--dry-run=client", "-o", "yaml")
    kubectl("apply", "-n", namespace, "-f", "-", stdin=renewed)
    assert wait.until("the renewed certificate is served", lambda: trusts(2), 180, 2)
    (pod,) = kube.items("pod", namespace, "app.kubernetes.io/name=slipway-gateway")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
