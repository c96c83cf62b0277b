"""The cluster as the tests see it: kubectl, nothing else."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

import wait

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
HUB = "http://hub.slipway-demo.svc"
SYSTEM = "slipway-system"
NAMES_OF_CHILDREN = "deployment,replicaset,pod,service,configmap,persistentvolumeclaim,serviceaccount,networkpolicy"


class Refused(Exception):
    """kubectl said no; the text is what it said."""


def kubectl(*args: str, stdin: str | None = None) -> str:
    """Runs kubectl and returns its output."""
    done = subprocess.run(["kubectl", *args], input=stdin, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise Refused(done.stderr.strip())
    return done.stdout


@contextmanager
def namespace(prefix: str = "test", used_by: str = "") -> Iterator[str]:
    """A namespace of its own, removed afterwards."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    kubectl("create", "namespace", name)
    kubectl("annotate", "namespace", name, f"slipway.dev/test={used_by[:200]}")
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def get(kind: str, name: str, namespace: str) -> dict[str, Any]:
    """One object."""
    return json.loads(kubectl("get", kind, name, "-n", namespace, "-o", "json"))


def items(kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
    """Objects of one or more kinds."""
    args = ["get", kind, "-n", namespace, "-o", "json"]
    if selector:
        args += ["-l", selector]
    return json.loads(kubectl(*args))["items"]


def apply(document: dict[str, Any] | str, namespace: str) -> None:
    """Server-side apply of YAML text or of one object."""
    text = document if isinstance(document, str) else yaml.safe_dump(document)
    kubectl("apply", "--server-side", "--force-conflicts", "-n", namespace, "-f", "-", stdin=text)


def shipped_example() -> dict[str, Any]:
    """The ModelDeployment of the demo, for any namespace."""
    documents = yaml.safe_load_all((EXAMPLES / "modeldeployment.yaml").read_text())
    example = next(d for d in documents if d and d["kind"] == "ModelDeployment")
    example["metadata"].pop("namespace", None)
    return example


def condition(mdep: dict[str, Any], type_: str) -> dict[str, Any]:
    """One condition, or an empty one."""
    conditions = mdep.get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), {})


def is_ready(name: str, namespace: str, reason: str = "Ready") -> dict[str, Any] | None:
    """The ModelDeployment if it is Ready for this reason and its current generation."""
    mdep = get("mdep", name, namespace)
    ready = condition(mdep, "Ready")
    current = mdep.get("status", {}).get("observedGeneration") == mdep["metadata"]["generation"]
    assert (ready.get("status"), ready.get("reason")) == ("True", reason) and current, json.dumps(mdep.get("status", {}), indent=1)
    return mdep


def patch(name: str, namespace: str, spec: dict[str, Any]) -> None:
    """Merges this into the spec of a ModelDeployment; None removes a field."""
    kubectl("patch", "mdep", name, "-n", namespace, "--type=merge", "-p", json.dumps({"spec": spec}))


def until_ready(name: str, namespace: str, seconds: float = 120) -> dict[str, Any]:
    """Waits for Ready and returns the ModelDeployment."""
    return wait.until(f"{namespace}/{name} is Ready", lambda: is_ready(name, namespace), seconds)


def until_reason(name: str, namespace: str, reason: str, seconds: float = 30) -> dict[str, Any]:
    """Waits until `Ready` is False for this reason."""

    def probe() -> dict[str, Any]:
        mdep = get("mdep", name, namespace)
        ready = condition(mdep, "Ready")
        assert (ready.get("status"), ready.get("reason")) == ("False", reason), json.dumps(
            mdep.get("status", {}), indent=1
        )
        return mdep

    return wait.until(f"{namespace}/{name} is not Ready because of {reason}", probe, seconds)


def model_deployment(name: str, repo: str, endpoint: str, **spec: Any) -> dict[str, Any]:
    """A small ModelDeployment of a repository of the tests' hub."""
    return {
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": {"huggingFace": {"repo": repo, "endpoint": endpoint}}, **spec},
    }
