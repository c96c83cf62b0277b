"""A replica whose spec sets no memory gets the limit that its model needs, while it runs."""

import kube
import models
import wait
from conftest import client_of

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def bytes_of(quantity: str) -> int:
    unit = next((unit for unit in UNITS if quantity.endswith(unit)), "")
    return int(quantity.removesuffix(unit)) * UNITS.get(unit, 1)


def test_a_replica_without_a_memory_limit_gets_one_without_a_restart(namespace: str, hub) -> None:
    kube.apply(kube.model_deployment("plain", "slipway/tiny-trained", hub.endpoint), namespace)
    ready = kube.until_ready("plain", namespace)

    def limited() -> tuple[dict, dict]:
        """The pod, once the kubelet has set the limit that the spec of the pod has."""
        (pod,) = kube.items("pod", namespace, "slipway.dev/model-deployment=plain")
        (container,) = pod["spec"]["containers"]
        (status,) = pod["status"]["containerStatuses"]
        limit = container.get("resources", {}).get("limits", {}).get("memory")
        assert limit, pod["spec"]
        assert status["resources"].get("limits", {}).get("memory") == limit, status
        return pod, container

    pod, container = wait.until("the pod has a memory limit", limited, 60)
    needed = kube.get("mdep", "plain", namespace)["status"]["model"]["memoryBytes"]
    assert bytes_of(container["resources"]["limits"]["memory"]) == needed > 2**28
    assert container["resources"]["requests"]["memory"] == "0"
    assert pod["status"]["qosClass"] == "Burstable"
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    (deployment,) = kube.items("deployment", namespace)
    assert "limits" not in deployment["spec"]["template"]["spec"]["containers"][0].get("resources", {})
    chat = models.chats()[0]
    answer = client_of(ready).chat.completions.create(
        model=ready["status"]["modelName"], messages=chat.openai_messages(), temperature=0
    )
    assert answer.choices[0].message.content == chat.answer


def test_a_limit_of_the_spec_stays(namespace: str, hub) -> None:
    mdep = kube.model_deployment("sized", "slipway/tiny-trained", hub.endpoint, resources={"memory": "512Mi"})
    kube.apply(mdep, namespace)
    kube.until_ready("sized", namespace)
    (pod,) = kube.items("pod", namespace, "slipway.dev/model-deployment=sized")
    assert pod["spec"]["containers"][0]["resources"] == {"limits": {"memory": "512Mi"}, "requests": {"memory": "512Mi"}}
