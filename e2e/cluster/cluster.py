#!/usr/bin/env python3
"""The local Kubernetes: `cluster.py up | down | status | env | exec -- CMD… | load TAR… | gpu N`.

kind where Docker runs, otherwise the real control plane and kubelet on this machine (README.md tells how).
This file reads the command line, takes the lock, and chooses between the two.
"""

import argparse
import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import host
import kind
import native
import shell
from layout import CLUSTER, KUBECONFIG, LOCK, LOGS, TOOLS

MIB = 1024 * 1024
GPU = "nvidia.com/gpu"


def main() -> None:
    arguments = parser().parse_args()
    try:
        arguments.run(arguments)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip()
        sys.exit(f"cluster: {shlex.join(error.cmd)} failed with exit code {error.returncode}{': ' if said else ''}{said}")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="cluster.py", description=__doc__.splitlines()[0])
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=description, description=description)
        added.set_defaults(run=run)
        return added

    command("up", up, "start the cluster, or do nothing when it runs")
    command("down", down, "stop the cluster and remove everything of it but the built programs")
    state = command("status", status, "say what runs; exit code 1 when the cluster is not ready")
    state.add_argument("--json", action="store_true")
    command("env", env, "print shell commands that set KUBECONFIG and PATH")
    command("exec", execute, "run a command in the cluster's network with the cluster's DNS").add_argument("command", nargs=argparse.REMAINDER)
    command("load", load, "import image archives (docker-archive tars)").add_argument("tars", nargs="+", type=Path)
    command("gpu", gpu, f"give the node N {GPU}, for tests of scheduling").add_argument("n", type=int)
    return top


def up(_: argparse.Namespace) -> None:
    cluster = chosen()
    require_root(cluster)
    with locked():
        cluster.up()
    print(f"the cluster is ready; for kubectl and helm: eval \"$({sys.executable} {sys.argv[0]} env)\"")


def down(_: argparse.Namespace) -> None:
    cluster = chosen()
    require_root(cluster)
    with locked():
        cluster.down()


def status(arguments: argparse.Namespace) -> None:
    found = chosen().status()
    if arguments.json:
        print(json.dumps(found))
    else:
        print("ready" if found["ready"] else f"not ready: {found['reason']}")
        for name, pid in found["processes"].items():
            print(f"  {name}: {'ended' if pid is None else 'running'}")
        if found["memory_bytes"]:
            print(f"  memory of all its processes, pods included: {found['memory_bytes'] // MIB} MiB; logs: {LOGS}")
    sys.exit(0 if found["ready"] else 1)


def env(_: argparse.Namespace) -> None:
    print(f"export KUBECONFIG={shlex.quote(str(KUBECONFIG))}")
    print(f'export PATH={shlex.quote(str(TOOLS))}:"$PATH"')


def execute(arguments: argparse.Namespace) -> None:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        sys.exit("cluster: exec needs a command")
    cluster = chosen()
    host.require_root()
    os.environ["KUBECONFIG"] = str(KUBECONFIG)
    os.environ["PATH"] = f"{TOOLS}:{os.environ['PATH']}"
    shell.replace_by(command, require_node(cluster))


def load(arguments: argparse.Namespace) -> None:
    cluster = chosen()
    require_root(cluster)
    require_node(cluster)
    missing = [str(tar) for tar in arguments.tars if not tar.is_file()]
    if missing:
        sys.exit(f"cluster: no such file: {', '.join(missing)}")
    with locked():
        cluster.load(arguments.tars)


def gpu(arguments: argparse.Namespace) -> None:
    require_node(chosen())
    kubectl = [str(TOOLS / "kubectl"), "--kubeconfig", str(KUBECONFIG)]
    nodes = subprocess.run([*kubectl, "get", "nodes", "--output=name"], check=True, capture_output=True, text=True)
    patch = json.dumps({"status": {"capacity": {GPU: str(arguments.n)}}})
    for node in nodes.stdout.split():
        subprocess.run([*kubectl, "patch", node, "--subresource=status", "--type=merge", f"--patch={patch}"], check=True)


def chosen() -> ModuleType:
    """kind where Docker runs; a cluster that already runs decides otherwise."""
    CLUSTER.mkdir(parents=True, exist_ok=True)
    return kind if not native.is_running() and kind.docker_runs() else native


def require_node(cluster: ModuleType) -> int:
    """The first process of the running node, or the remedy."""
    node = cluster.node_process()
    if node is None:
        sys.exit("cluster: not running; start it with: make cluster")
    return node


def require_root(cluster: ModuleType) -> None:
    """Docker needs no root; namespaces do."""
    if cluster is native:
        host.require_root()


@contextmanager
def locked() -> Iterator[None]:
    """One tool at a time changes the cluster; the kernel frees the lock of one that was killed."""
    with open(LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another cluster.py to finish", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    main()
