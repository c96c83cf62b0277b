"""From `kubectl apply` to an answer, and back to nothing."""

import threading

import openai
import pytest

import kube
import models
import wait
from conftest import client_of
from kube import kubectl

CHATS = models.chats()


def ask(client: openai.OpenAI, model: str, chat: models.Chat) -> str:
    answer = client.chat.completions.create(model=model, messages=chat.openai_messages(), temperature=0)
    return answer.choices[0].message.content


def pods_of(name: str, namespace: str) -> list[dict]:
    return kube.items("pod", namespace, f"slipway.dev/model-deployment={name}")


def test_the_example_answers_through_its_service(namespace: str) -> None:
    example = kube.shipped_example()
    kube.apply(example, namespace)
    name = example["metadata"]["name"]
    mdep = kube.until_ready(name, namespace)
    status = mdep["status"]
    assert status["url"] == f"http://{name}.{namespace}.svc/v1"
    assert status["summary"] == "1/1" and status["phase"] == "Ready"
    assert len(status["model"]["revision"]) == 40 and status["model"]["architecture"] == "LlamaForCausalLM"
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Accepted": "True",
        "ModelReady": "True",
        "Scheduled": "True",
        "EngineReady": "True",
        "Available": "True",
        "Progressing": "False",
        "Reconciling": "False",
        "Stalled": "False",
        "Ready": "True",
    }

    client = client_of(mdep)
    model = status["modelName"]
    assert [m.id for m in client.models.list()] == [model]
    for chat in CHATS:
        assert ask(client, model, chat) == chat.answer
        stream = client.chat.completions.create(
            model=model, messages=chat.openai_messages(), temperature=0, stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in stream) == chat.answer

    table = kubectl("get", "mdep", "-n", namespace)
    assert table.split()[:6] == ["NAME", "READY", "REASON", "MODEL", "REPLICAS", "GPU"], table
    events = {e["reason"] for e in kube.items("event", namespace) if e.get("involvedObject", {}).get("name") == name}
    assert "Ready" in events, events


def test_scale_change_and_delete(namespace: str, hub) -> None:
    name = "tiny"
    mdep = kube.model_deployment(name, "slipway/tiny-trained", hub.endpoint)
    kube.apply(mdep, namespace)
    ready = kube.until_ready(name, namespace)
    client, model = client_of(ready), ready["status"]["modelName"]

    kubectl("scale", "mdep", name, "-n", namespace, "--replicas=2")
    scaled = kube.until_ready(name, namespace)
    assert scaled["status"]["summary"] == "2/2" and len(pods_of(name, namespace)) == 2
    kubectl("scale", "mdep", name, "-n", namespace, "--replicas=0")
    at_zero = wait.until("it is at zero", lambda: kube.is_ready(name, namespace, "ScaledToZero"), 60)
    assert kube.condition(at_zero, "Available")["status"] == "False"
    wait.until("no pod is left", lambda: not pods_of(name, namespace), 120)
    kubectl("scale", "mdep", name, "-n", namespace, "--replicas=1")
    kube.until_ready(name, namespace)

    before = {pod["metadata"]["uid"] for pod in pods_of(name, namespace)}
    long_chat = [{"role": "user", "content": "lion river gold " * 30}]
    client.chat.completions.create(model=model, messages=long_chat, max_tokens=1)
    with traffic(client, model) as failures:
        kubectl("patch", "mdep", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"engine":{"maxModelLen":64}}}')
        kube.until_ready(name, namespace)
        wait.until("the old pod is gone", lambda: not before & {p["metadata"]["uid"] for p in pods_of(name, namespace)}, 120)
    assert failures == [], "no request may fail during a rollout"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=long_chat, max_tokens=1)

    kubectl("delete", "mdep", name, "-n", namespace)
    ours = "app.kubernetes.io/managed-by=slipway-operator"
    wait.until("every child is gone", lambda: not kube.items(kube.NAMES_OF_CHILDREN, namespace, ours), 120)
    leftover = [
        f"{item['kind']}/{item['metadata']['name']}"
        for item in kube.items(kube.NAMES_OF_CHILDREN, namespace)
        if item["metadata"]["name"] not in ("default", "kube-root-ca.crt")
    ]
    assert leftover == []


class traffic:  # noqa: N801 - reads as a phrase: `with traffic(client, model) as failures`
    """Asks without a pause, one question after another, and collects what went wrong."""

    def __init__(self, client: openai.OpenAI, model: str) -> None:
        self._client, self._model = client, model
        self._stop = threading.Event()
        self._failures: list[str] = []
        self._asker = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._stop.is_set():
            for chat in CHATS:
                try:
                    if ask(self._client, self._model, chat) != chat.answer:
                        self._failures.append("another answer")
                except openai.OpenAIError as err:
                    self._failures.append(f"{type(err).__name__}: {err}")

    def __enter__(self) -> list[str]:
        self._asker.start()
        return self._failures

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._asker.join()


def accepts(mdep: dict, key: str) -> bool:
    try:
        client_of(mdep, key).models.list()
    except openai.AuthenticationError:
        return False
    return True


def test_api_keys_are_asked_for(namespace: str, hub) -> None:
    kubectl("create", "secret", "generic", "keys", "-n", namespace, "--from-literal=OPENAI_API_KEYS=alpha,beta")
    mdep = kube.model_deployment(
        "private", "slipway/tiny-trained", hub.endpoint, auth={"apiKeysSecretRef": {"name": "keys"}}
    )
    kube.apply(mdep, namespace)
    ready = kube.until_ready("private", namespace)
    for key in ("alpha", "beta"):
        assert ask(client_of(ready, key), ready["status"]["modelName"], CHATS[0]) == CHATS[0].answer
    assert not accepts(ready, "gamma")

    pods = {pod["metadata"]["uid"] for pod in pods_of("private", namespace)}
    kubectl("patch", "secret", "keys", "-n", namespace, "-p", '{"stringData":{"OPENAI_API_KEYS":"gamma"}}')
    wait.until("the new key is accepted", lambda: accepts(ready, "gamma"), 150)
    assert not accepts(ready, "alpha")
    assert pods == {pod["metadata"]["uid"] for pod in pods_of("private", namespace)}


def test_a_claim_keeps_the_model_for_the_next_pod(namespace: str, hub) -> None:
    mdep = kube.model_deployment(
        "kept", "slipway/tiny-trained", hub.endpoint, cache={"type": "PVC", "size": "64Mi"}
    )
    kube.apply(mdep, namespace)
    kube.until_ready("kept", namespace)
    hub.forget()
    old = {pod["metadata"]["name"] for pod in pods_of("kept", namespace)}
    kubectl("delete", "pod", "-n", namespace, *old)
    kube.until_ready("kept", namespace)
    assert old.isdisjoint(pod["metadata"]["name"] for pod in pods_of("kept", namespace))
    assert not [r for r in hub.requests("slipway/tiny-trained") if "resolve" in r["path"] or "cdn" in r["path"]]


def test_environment_of_a_runpod_worker(namespace: str, hub) -> None:
    env = [
        {"name": "MAX_MODEL_LEN", "value": "64"},
        {"name": "OPENAI_SERVED_MODEL_NAME_OVERRIDE", "value": "my-model"},
        {"name": "TRUST_REMOTE_CODE", "value": "1"},
    ]
    kube.apply(kube.model_deployment("pasted", "slipway/tiny-trained", hub.endpoint, env=env), namespace)
    ready = kube.until_ready("pasted", namespace)
    assert ready["status"]["modelName"] == "my-model"
    assert any("TRUST_REMOTE_CODE" in text for text in ready["status"]["settings"]["accepted"])
    with pytest.raises(openai.BadRequestError):
        client_of(ready).completions.create(model="my-model", prompt="word " * 100, max_tokens=1)


def test_a_new_operator_changes_no_pod(namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("calm", "slipway/tiny-trained", hub.endpoint), namespace)
    kube.until_ready("calm", namespace)
    before = [(p["metadata"]["uid"], p["status"]["containerStatuses"][0]["restartCount"]) for p in pods_of("calm", namespace)]
    kubectl("rollout", "restart", "deployment/slipway-operator", "-n", "slipway-system")
    kubectl("rollout", "status", "deployment/slipway-operator", "-n", "slipway-system", "--timeout=90s")
    kubectl("annotate", "mdep", "calm", "-n", namespace, "slipway.dev/poked=1")
    kubectl("scale", "mdep", "calm", "-n", namespace, "--replicas=2")
    wait.until("the new operator acts", lambda: len(pods_of("calm", namespace)) == 2, 90)
    kube.until_ready("calm", namespace)
    after = [(p["metadata"]["uid"], p["status"]["containerStatuses"][0]["restartCount"]) for p in pods_of("calm", namespace)]
    assert set(before) <= set(after)
