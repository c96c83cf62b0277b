"""The cluster where Docker runs: kind, with the same name, commands and default StorageClass.

Knows Docker and kind; native.py is its twin.
"""

import json
import shutil
import subprocess
from pathlib import Path

import programs
import shell
from layout import KUBECONFIG, NAME, STATE, TOOLS

CONTROL_PLANE = f"{NAME}-control-plane"
READY_WAIT = "120s"


def docker_runs() -> bool:
    """Whether there is a Docker that answers."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


def up() -> None:
    """Make the cluster run; nothing to do when it already does."""
    programs.build(programs.WITH_DOCKER)
    STATE.mkdir(parents=True, exist_ok=True)
    programs.link_tools(programs.WITH_DOCKER, TOOLS)
    if is_running() and status()["ready"]:
        return
    kind("delete", "cluster", "--name", NAME)
    shell.write_files()
    kind("create", "cluster", "--name", NAME, "--wait", READY_WAIT, "--kubeconfig", str(KUBECONFIG))


def down() -> None:
    """Remove the cluster."""
    if programs.path(programs.KIND, "kind").exists():
        kind("delete", "cluster", "--name", NAME)
    shutil.rmtree(STATE, ignore_errors=True)


def is_running() -> bool:
    """Whether the container of the node runs."""
    return node_process() is not None


def status() -> dict:
    """As native.status; kind's processes are its own matter."""
    state = {"running": is_running(), "ready": False, "reason": "not started", "processes": {}, "memory_bytes": 0}
    if state["running"]:
        kubectl = [str(TOOLS / "kubectl"), "--kubeconfig", str(KUBECONFIG)]
        nodes = subprocess.run([*kubectl, "get", "nodes", "-o", "json"], capture_output=True, text=True)
        items = json.loads(nodes.stdout)["items"] if nodes.returncode == 0 else []
        conditions = [condition for node in items for condition in node["status"]["conditions"]]
        state["ready"] = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
        state["reason"] = None if state["ready"] else nodes.stderr.strip() or "the node is not ready"
    return state


def load(tars: list[Path]) -> None:
    """Import image archives."""
    for tar in tars:
        kind("load", "image-archive", "--name", NAME, str(tar))


def node_process() -> int | None:
    """The first process of the node's container, as the host counts it."""
    inspect = ["docker", "inspect", "--format", "{{.State.Pid}}", CONTROL_PLANE]
    result = subprocess.run(inspect, capture_output=True, text=True)
    pid = int(result.stdout) if result.returncode == 0 else 0
    return pid or None


def kind(*arguments: str) -> None:
    subprocess.run([str(programs.path(programs.KIND, "kind")), *arguments], check=True)
