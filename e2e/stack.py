"""The whole of Slipway on the local cluster: binaries, images, cluster, chart, and the hub with the shipped model.

Used by the demo and by the tests, so that what the tests prove is what the demo shows.
`python3 e2e/stack.py up` brings it up, `python3 e2e/stack.py exec CMD` runs a command inside the cluster's network.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import progress

ROOT = progress.ROOT
CLUSTER = [sys.executable, str(ROOT / "e2e" / "cluster" / "cluster.py")]
IMAGES = [sys.executable, str(ROOT / "e2e" / "images.py")]
DEMO_NAMESPACE = "slipway-demo"
PROFILE = os.environ.setdefault("PROFILE", "dev")
SYSTEM_NAMESPACE = "slipway-system"


def require(*tools: str) -> None:
    """Stops with the one command that installs what is missing."""
    packages = {"cargo": "rustup (see the Rust site)", "go": "golang", "cc": "build-essential", "pip": "python3-pip"}
    missing = [tool for tool in tools if shutil.which(tool) is None]
    # The compiler for CUDA comes through it.
    if importlib.util.find_spec("pip") is None:
        missing.append("pip")
    if missing:
        names = ", ".join(f"{tool} ({packages.get(tool, tool)})" for tool in missing)
        raise progress.StepFailed(f"missing on this machine: {names}")


def cargo_build() -> None:
    """Builds every binary, in the profile of the tests unless PROFILE=release: that build takes several times as long."""
    command = ["cargo", "build", "--locked", "--workspace", "--bins"]
    if PROFILE != "dev":
        command.append("--release")
    progress.run(f"Build the operator and the runtime ({PROFILE} profile)", command, progress.last_word_of_cargo)


def cluster_up() -> dict[str, str]:
    """Starts the cluster and returns the environment that reaches it."""
    progress.run("Start Kubernetes", [*CLUSTER, "up"], lambda line: line.strip() or None)
    return cluster_environment()


def cluster_environment() -> dict[str, str]:
    """KUBECONFIG and PATH for kubectl and helm."""
    script = subprocess.run([*CLUSTER, "env"], check=True, capture_output=True, text=True).stdout
    shell = subprocess.run(
        ["sh", "-c", f"{script}\nenv -0"], check=True, capture_output=True, text=True
    ).stdout
    return dict(pair.split("=", 1) for pair in shell.split("\0") if "=" in pair)


def images() -> dict[str, str]:
    """Builds the images, loads them into the cluster, and returns their full names."""
    progress.run("Make and load the images", [*IMAGES, "--load"], lambda line: line.strip() or None)
    return json.loads(subprocess.run([*IMAGES, "--names"], check=True, capture_output=True, text=True).stdout)


def install(names: dict[str, str], environment: dict[str, str]) -> None:
    """Installs or upgrades the chart, and the hub that serves the shipped model."""
    operator_repository, operator_tag = names["operator"].rsplit(":", 1)
    runtime_repository, runtime_tag = names["runtime"].rsplit(":", 1)
    values = [
        f"image.operator.repository={operator_repository}",
        f"image.operator.tag={operator_tag}",
        f"image.runtime.repository={runtime_repository}",
        f"image.runtime.tag={runtime_tag}",
    ]
    command = ["helm", "upgrade", "--install", "slipway", str(ROOT / "charts" / "slipway")]
    command += ["--namespace", SYSTEM_NAMESPACE, "--create-namespace", "--wait", "--timeout", "2m"]
    for value in values:
        command += ["--set-string", value]
    progress.run("Install the chart", command, env=environment)
    manifest = (ROOT / "e2e" / "hub.yaml").read_text().replace("localhost/slipway-e2e-hub:dev", names["hub"])
    for arguments in (
        ["apply", "--server-side", "-f", "-"],
        ["rollout", "status", "deployment/hub", "-n", DEMO_NAMESPACE, "--timeout=60s"],
    ):
        done = subprocess.run(
            ["kubectl", *arguments], input=manifest, text=True, capture_output=True, env=environment
        )
        if done.returncode != 0:
            raise progress.StepFailed(f"kubectl {' '.join(arguments)}: {done.stderr}")


def up() -> dict[str, str]:
    """Everything, in order; returns the environment that reaches the cluster."""
    require("cargo", "go", "cc")
    cargo_build()
    environment = cluster_up()
    install(images(), environment)
    return environment


def describe() -> None:
    """What somebody who looks for a fault wants to see."""
    environment = cluster_environment()
    for arguments in (
        ["get", "mdep,deployment,pod,pvc", "-A", "-o", "wide"],
        ["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ["logs", "-n", SYSTEM_NAMESPACE, "deployment/slipway-operator", "--tail=200"],
    ):
        print(f"$ kubectl {' '.join(arguments)}", flush=True)
        subprocess.run(["kubectl", *arguments], env=environment, check=False)


def main() -> int:
    """`up`, `describe`, or `exec CMD` inside the cluster's network."""
    if sys.argv[1:2] == ["describe"]:
        describe()
        return 0
    if sys.argv[1:2] == ["exec"]:
        command = sys.argv[2:]
        environment = {**os.environ, **cluster_environment()}
        return subprocess.run([*CLUSTER, "exec", "--", *command], env=environment, cwd=Path.cwd()).returncode
    try:
        up()
    except progress.StepFailed as err:
        print(err, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
