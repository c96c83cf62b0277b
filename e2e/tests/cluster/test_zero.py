"""To zero and back: no request is lost, no stranger starts a replica, and restarts of gateway and operator change nothing."""

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

import kube
import models
import wait
from kube import kubectl

SYSTEM = "slipway-system"
GATEWAY = "http://slipway-gateway.slipway-system.svc"
CHAT = models.chats()[0]
N_HELD_MAX = 100


def deploy(name: str, namespace: str, hub, **spec: object) -> str:
    """A ModelDeployment that ends its replicas soon after the last request; returns the name of its model."""
    mdep = kube.model_deployment(name, "slipway/tiny-trained", hub.endpoint)
    served = f"{namespace}-{name}"
    mdep["spec"]["model"]["servedModelName"] = [served]
    mdep["spec"]["autoscaling"] = {"minReplicas": 0, "maxReplicas": 2, "scaleToZeroAfterSeconds": 10}
    mdep["spec"].update(spec)
    kube.apply(mdep, namespace)
    return served


def until_zero(name: str, namespace: str) -> dict:
    """Waits until no replica runs and the operator waits for requests."""

    def is_zero() -> dict:
        mdep = kube.is_ready(name, namespace, "ScaledToZero")
        assert kube.condition(mdep, "AutoscalingActive")["reason"] == "WaitingForRequests", mdep["status"]["conditions"]
        return mdep

    return wait.until(f"{namespace}/{name} is at zero", is_zero, 120)


def gateway_pods() -> list[dict]:
    pods = kube.items("pod", SYSTEM, "app.kubernetes.io/component=gateway")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def client(key: str = "none", address: str = GATEWAY) -> openai.OpenAI:
    """The official client on the gateway, or on one of its pods."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=180)


def ask(of: openai.OpenAI, model: str) -> str:
    answer = of.chat.completions.create(model=model, messages=CHAT.openai_messages(), temperature=0)
    return answer.choices[0].message.content


def activations() -> dict[float, int]:
    """How many starts took at most so many seconds from the first held request to the written number."""
    pods = kube.items("pod", SYSTEM, "app.kubernetes.io/component=operator")
    counts: dict[float, int] = {}
    for pod in pods:
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8080/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith("slipway_operator_activation_duration_seconds_bucket"):
                    bound, count = line.split('le="')[1].split('"} ')
                    counts[float(bound)] = counts.get(float(bound), 0) + int(count)
    return counts


def test_a_burst_at_zero_is_answered_up_to_the_bound(namespace: str, hub) -> None:
    served = deploy("burst", namespace, hub)
    kube.until_ready("burst", namespace)
    at_zero = until_zero("burst", namespace)
    assert at_zero["status"]["phase"] == "ScaledToZero" and at_zero["status"]["summary"] == "0/0"
    assert kube.condition(at_zero, "Available")["status"] == "False"
    assert kube.get("service", "burst", namespace)["spec"]["clusterIP"]
    before = activations()

    # Each gateway has its own places, so the burst goes to one of them.
    of = client(address=f"http://{gateway_pods()[0]['status']['podIP']}:8000")
    refused: list[openai.RateLimitError] = []

    def one(_: int) -> str | None:
        try:
            return ask(of, served)
        except openai.RateLimitError as full:
            refused.append(full)
            return None

    with ThreadPoolExecutor(N_HELD_MAX + 5) as clients:
        answers = [answer for answer in clients.map(one, range(N_HELD_MAX + 5)) if answer is not None]
    assert len(answers) == N_HELD_MAX and set(answers) == {CHAT.answer}
    assert len(refused) == 5 and all(full.response.headers["retry-after"] for full in refused)

    after = activations()
    n_starts = {bound: after[bound] - before.get(bound, 0) for bound in after}
    assert n_starts[float("inf")] >= 1 and n_starts[1.0] == n_starts[float("inf")], n_starts
    mdep = kube.get("mdep", "burst", namespace)
    reasons = [change["reason"] for change in mdep["status"]["autoscaling"]["history"]]
    assert "Idle" in reasons and "HeldRequests" in reasons, reasons
    until_zero("burst", namespace)


def test_no_request_is_lost_between_zero_and_some(namespace: str, hub) -> None:
    served = deploy("loop", namespace, hub)
    kube.until_ready("loop", namespace)
    for n_clients in (1, 3, 1):
        until_zero("loop", namespace)
        with ThreadPoolExecutor(n_clients) as clients:
            assert set(clients.map(lambda _: ask(client(), served), range(n_clients))) == {CHAT.answer}
    until_zero("loop", namespace)
    stream = client().chat.completions.create(
        model=served, messages=CHAT.openai_messages(), temperature=0, stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in stream) == CHAT.answer


def test_requests_while_the_last_replica_ends_are_answered(namespace: str, hub) -> None:
    served = deploy("edge", namespace, hub)
    kube.until_ready("edge", namespace)
    until_zero("edge", namespace)
    ask(client(), served)
    stop, answers, failures = threading.Event(), [], []

    def traffic() -> None:
        # Pauses around the time after which replicas end, so that requests meet every moment of the end.
        pauses = (9.6, 10.4, 11.2, 12.0)
        for pause in pauses:
            if stop.wait(pause):
                return
            try:
                answers.append(ask(client(), served))
            except openai.OpenAIError as err:
                failures.append(repr(err))

    thread = threading.Thread(target=traffic)
    thread.start()
    thread.join(240)
    stop.set()
    assert not failures and len(answers) == 4 and set(answers) == {CHAT.answer}, failures


def test_a_strangers_key_starts_nothing(namespace: str, hub) -> None:
    kubectl("create", "secret", "generic", "keys", "-n", namespace, "--from-literal=OPENAI_API_KEYS=right,also-right")
    served = deploy("closed", namespace, hub, auth={"apiKeysSecretRef": {"name": "keys"}})
    kube.until_ready("closed", namespace)
    at_zero = until_zero("closed", namespace)
    assert len(at_zero["status"]["wakeKeys"]["hashes"]) == 2
    for stranger in ("none", "wrong"):
        with pytest.raises(openai.AuthenticationError) as refused:
            ask(client(stranger), served)
        assert "is not known to start one" in str(refused.value)
    assert served not in [model.id for model in client("wrong").models.list()]
    assert served in [model.id for model in client("right").models.list()]
    # A look at the status is later than any look at the demand would be.
    still = until_zero("closed", namespace)
    assert still["status"]["autoscaling"]["history"] == at_zero["status"]["autoscaling"]["history"]
    assert ask(client("also-right"), served) == CHAT.answer


def test_a_request_survives_a_restart_of_the_operator_and_keys_survive_that_of_the_gateway(namespace: str, hub) -> None:
    kubectl("create", "secret", "generic", "keys", "-n", namespace, "--from-literal=OPENAI_API_KEYS=right")
    served = deploy("restarted", namespace, hub, auth={"apiKeysSecretRef": {"name": "keys"}})
    kube.until_ready("restarted", namespace)
    until_zero("restarted", namespace)
    kubectl("rollout", "restart", "deployment/slipway-gateway", "-n", SYSTEM)
    kubectl("rollout", "status", "deployment/slipway-gateway", "-n", SYSTEM, "--timeout=100s")
    kubectl("scale", "deployment/slipway-operator", "-n", SYSTEM, "--replicas=0")
    try:
        wait.until("there is no operator", lambda: not kube.items("pod", SYSTEM, "app.kubernetes.io/component=operator"))
        with ThreadPoolExecutor(1) as clients:
            asked = clients.submit(ask, client("right"), served)
            wait.until("the gateway holds the request", lambda: held(namespace, "restarted"), 30)
            kubectl("scale", "deployment/slipway-operator", "-n", SYSTEM, "--replicas=1")
            assert asked.result(180) == CHAT.answer
    finally:
        kubectl("scale", "deployment/slipway-operator", "-n", SYSTEM, "--replicas=1")
        kubectl("rollout", "status", "deployment/slipway-operator", "-n", SYSTEM, "--timeout=100s")


def held(namespace: str, name: str) -> bool:
    """Whether a gateway holds a request for this ModelDeployment."""
    texts = []
    for pod in gateway_pods():
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8001/internal/demand", timeout=10) as answer:
            texts.append(answer.read().decode())
    return any(f'"namespace":"{namespace}","name":"{name}"' in text for text in texts)


def test_a_job_downloads_to_a_shared_claim_before_the_first_pod(namespace: str, hub) -> None:
    mdep = kube.model_deployment(
        "prefetched",
        "slipway/slow",
        hub.endpoint,
        autoscaling={"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 3600},
        cache={"type": "PVC", "size": "1Gi", "accessMode": "ReadWriteMany"},
    )
    kube.apply(mdep, namespace)
    downloading = kube.until_reason("prefetched", namespace, "Downloading", 60)
    assert "a Job downloads the model" in kube.condition(downloading, "Ready")["message"]
    assert downloading["status"]["phase"] == "Downloading"
    assert kube.items("job", namespace) and not kube.items("pod", namespace, "slipway.dev/model-deployment=prefetched")
    ready = kube.until_ready("prefetched", namespace, 180)
    assert ready["status"]["coldStart"]["p50"]["totalSeconds"] == ready["status"]["coldStart"]["totalSeconds"]
    wait.until("the Job is gone", lambda: not kube.items("job", namespace))
