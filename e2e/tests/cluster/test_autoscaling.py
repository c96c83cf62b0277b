"""The number of replicas follows the load of the replicas."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import openai

import kube
import wait
from conftest import client_of
from kube import kubectl

N_CLIENTS = 4


@contextmanager
def load(client: openai.OpenAI, model: str) -> Iterator[list[str]]:
    """Clients that ask without a pause, and what went wrong."""
    stop, failures = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            try:
                client.completions.create(
                    model=model, prompt="lion river", max_tokens=100, extra_body={"ignore_eos": True}
                )
            except openai.OpenAIError as err:
                failures.append(f"{type(err).__name__}: {err}")
                return

    clients = [threading.Thread(target=ask) for _ in range(N_CLIENTS)]
    for thread in clients:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in clients:
            thread.join()


def summary(name: str, namespace: str, expected: str) -> dict:
    mdep = kube.is_ready(name, namespace)
    assert mdep["status"]["summary"] == expected, mdep["status"]
    return mdep


def test_load_adds_a_replica_and_its_end_removes_it(namespace: str, hub) -> None:
    mdep = kube.model_deployment(
        "elastic",
        "slipway/tiny-trained",
        hub.endpoint,
        engine={"maxNumSeqs": 1},
        autoscaling={"maxReplicas": 2, "scaleDownWindowSeconds": 10},
    )
    kube.apply(mdep, namespace)
    ready = kube.until_ready("elastic", namespace)
    assert ready["status"]["summary"] == "1/1"
    kube_active = wait.until(
        "the autoscaler reads the load",
        lambda: kube.condition(kube.get("mdep", "elastic", namespace), "AutoscalingActive")["status"] == "True",
    )
    assert kube_active
    with load(client_of(ready), ready["status"]["modelName"]) as failures:
        wait.until("there are two replicas", lambda: summary("elastic", namespace, "2/2"), 90)
    assert failures == []
    scaled = wait.until("there is one replica again", lambda: summary("elastic", namespace, "1/1"), 180)

    history = scaled["status"]["autoscaling"]["history"]
    assert [(change["from"], change["to"]) for change in history] == [(2, 1), (1, 2)], history
    assert history[0]["reason"] == "LessLoad" and history[1]["reason"] in ("Arrivals", "Saturation"), history
    assert "requests/s" in history[1]["message"]
    events = {event["reason"] for event in kube.items("event", namespace)}
    assert {"ScaledUp", "ScaledDown"} <= events, events


def test_the_autoscaler_wins_over_a_number_of_replicas(namespace: str, hub) -> None:
    mdep = kube.model_deployment(
        "limited", "slipway/tiny-trained", hub.endpoint, replicas=5, autoscaling={"minReplicas": 2, "maxReplicas": 3}
    )
    kube.apply(mdep, namespace)
    ready = kube.until_ready("limited", namespace)
    assert ready["status"]["summary"] == "2/2"
    assert "spec.replicas has no effect" in kube.condition(ready, "Accepted")["message"]
    kubectl("patch", "mdep", "limited", "-n", namespace, "--type=json", "-p", '[{"op": "remove", "path": "/spec/autoscaling"}]')
    kubectl("scale", "mdep", "limited", "-n", namespace, "--replicas=1")
    static = kube.until_ready("limited", namespace)
    assert static["status"]["summary"] == "1/1" and "autoscaling" not in static["status"]
    assert kube.condition(static, "AutoscalingActive") == {}


def test_a_horizontal_pod_autoscaler_may_own_the_number(namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("external", "slipway/tiny-trained", hub.endpoint), namespace)
    kube.until_ready("external", namespace)
    # Its minimum and maximum need no metrics.
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "external"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "name": "external"},
            "minReplicas": 2,
            "maxReplicas": 3,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": "vllm:num_requests_waiting"},
                        "target": {"type": "AverageValue", "averageValue": "5"},
                    },
                }
            ],
        },
    }
    kube.apply(scaler, namespace)
    wait.until("the scaler's minimum holds", lambda: summary("external", namespace, "2/2"), 120)
    able = [c for c in kube.get("hpa", "external", namespace)["status"]["conditions"] if c["type"] == "AbleToScale"]
    assert able and able[0]["status"] == "True", able
    # The ModelDeployment that named no number still names none: the scaler's number is not taken back.
    kubectl("annotate", "mdep", "external", "-n", namespace, "seen=yes")
    kube.apply(kube.model_deployment("external", "slipway/tiny-trained", hub.endpoint, engine={"maxNumSeqs": 2}), namespace)
    assert kube.until_ready("external", namespace)["status"]["summary"] == "2/2"
