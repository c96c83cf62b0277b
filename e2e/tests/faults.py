"""Faults of a spec and of what it names: how each is injected, the reason that names it, and what mends it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import kube
from kube import kubectl

NAME = "faulty"
"""The ModelDeployment that each fault is injected into."""

TINY = "slipway/tiny-trained"
GATED = "slipway/gated"
RIGHT_TOKEN = "the-right-token"

Action = Callable[[str], object]
"""What is done in a namespace."""


def nothing(_: str) -> None:
    """No preparation."""


def patched(**spec: Any) -> Action:
    """Changes the spec."""
    return lambda namespace: kube.patch(NAME, namespace, spec)


def applied(kind: str, name: str, version: str = "v1", **content: Any) -> Action:
    """Creates or changes an object."""
    document = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}
    return lambda namespace: kube.apply(document, namespace)


def deleted(kind: str, name: str) -> Action:
    """Removes an object."""
    return lambda namespace: kubectl("delete", kind, name, "-n", namespace)


def secret(key: str, value: str) -> Action:
    """Creates or changes the Secret `held`."""
    return applied("Secret", "held", stringData={key: value})


def claim(name: str) -> Action:
    """Creates a claim of the default class."""
    resources = {"requests": {"storage": "64Mi"}}
    return applied("PersistentVolumeClaim", name, spec={"accessModes": ["ReadWriteOnce"], "resources": resources})


def repo(name: str) -> Action:
    """Serves another repository."""
    return patched(model={"huggingFace": {"repo": name}})


@dataclass(frozen=True)
class Fault:
    """One fault: the repository and spec that have it, or the preparation that causes it."""

    name: str
    reason: str
    mend: Action
    repo: str = TINY
    spec: dict[str, Any] = field(default_factory=dict)
    prepare: Action = nothing
    named_s_max: float = 30

    def inject(self, namespace: str) -> None:
        """Creates the ModelDeployment."""
        self.prepare(namespace)
        document = kube.model_deployment(NAME, self.repo, kube.HUB)
        spec = json.loads(json.dumps(self.spec))
        document["spec"]["model"].update(spec.pop("model", {}))
        document["spec"].update(spec)
        kube.apply(document, namespace)


NO_IMAGE = {"image": "localhost/no-such-image:1", "pullPolicy": "Never"}
GATED_BY_HELD = {"model": {"tokenSecretRef": {"name": "held"}}}

FAULTS = (
    Fault("image absent", "ImagePullFailed", patched(runtime=None), spec={"runtime": NO_IMAGE}),
    Fault("Secret of API keys absent", "SecretMissing", secret("OPENAI_API_KEYS", "key"), spec={"auth": {"apiKeysSecretRef": {"name": "held"}}}),
    Fault("Secret of token absent", "SecretMissing", secret("HF_TOKEN", RIGHT_TOKEN), GATED, GATED_BY_HELD),
    Fault("token wrong", "DownloadUnauthorized", secret("HF_TOKEN", RIGHT_TOKEN), GATED, GATED_BY_HELD, secret("HF_TOKEN", "another")),
    Fault("repository absent", "DownloadNotFound", repo(TINY), "slipway/no-such-model"),
    Fault("architecture unknown", "UnsupportedArchitecture", repo(TINY), "slipway/unknown-architecture"),
    Fault("memory larger than a node", "Unschedulable", patched(resources=None), spec={"resources": {"memory": "900Ti"}}),
    Fault("more GPUs than a node has", "InsufficientGPU", patched(resources=None), spec={"resources": {"gpu": {"count": 64}}}),
    Fault("node selector without a node", "Unschedulable", patched(scheduling=None), spec={"scheduling": {"nodeSelector": {"disk": "none"}}}),
    Fault("claim absent", "VolumeNotBound", claim("absent"), spec={"cache": {"type": "PVC", "claimName": "absent"}}),
    Fault("variable is no number", "InvalidSetting", patched(env=None), spec={"env": [{"name": "MAX_NUM_SEQS", "value": "many"}]}),
    Fault("setting is not supported", "InvalidSetting", patched(env=None), spec={"env": [{"name": "TENSOR_PARALLEL_SIZE", "value": "2"}]}),
    Fault("context longer than the model", "InvalidSetting", patched(engine=None), spec={"engine": {"maxModelLen": 16_000_000}}),
    Fault("memory limit too small", "OutOfMemory", patched(resources=None), spec={"resources": {"memory": "20Mi"}}),
    # The kubelet looks at the size of such a volume once a minute.
    Fault("cache too small", "DiskFull", patched(cache=None), spec={"cache": {"type": "Ephemeral", "size": "1Mi"}}, named_s_max=120),
    Fault("hub does not answer", "DownloadFailed", patched(model={"huggingFace": {"endpoint": kube.HUB}}), spec={"model": {"huggingFace": {"repo": TINY, "endpoint": "http://hub.nowhere.svc"}}}),
    Fault(
        "name taken by a Service",
        "NameTaken",
        deleted("service", NAME),
        prepare=applied("Service", NAME, spec={"ports": [{"port": 80}]}),
    ),
    Fault(
        "quota of pods used up",
        "PodsRefused",
        deleted("resourcequota", "full"),
        prepare=applied("ResourceQuota", "full", spec={"hard": {"pods": "0"}}),
    ),
)
