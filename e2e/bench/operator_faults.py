"""How long until a fault has a name in the status, and until the model serves after its cause is mended.

A fault of a spec comes from the table of the tests (`e2e/tests/faults.py`). A fault of a process is a kill -9.
"""

import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faults
import kube
import wait

NAMED_SECONDS_MAX = 120
MENDED_SECONDS_MAX = 400
GATEWAY = "http://slipway-gateway.slipway-system.svc"
CRASHES = 3


@dataclass(frozen=True)
class Row:
    """One line of the table; seconds are None where nothing is to be measured."""

    fault: str
    reason: str
    named_s: float | None
    recovered_s: float | None


def of_spec(fault: faults.Fault, namespace: str) -> Row:
    """Injects, waits for the reason, mends, waits for Ready."""
    start = time.monotonic()
    fault.inject(namespace)
    kube.until_reason(faults.NAME, namespace, fault.reason, NAMED_SECONDS_MAX)
    named = round(time.monotonic() - start, 1)
    start = time.monotonic()
    fault.mend(namespace)
    kube.until_ready(faults.NAME, namespace, MENDED_SECONDS_MAX)
    return Row(fault.name, fault.reason, named, round(time.monotonic() - start, 1))


def processes(pod: dict[str, Any], command: str) -> list[int]:
    """Processes of a pod on this machine, by its uid in their control group."""
    uid = pod["metadata"]["uid"]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            groups = (folder / "cgroup").read_text()
        except OSError:
            continue
        if command in words and (uid in groups or uid.replace("-", "_") in groups):
            found.append(int(folder.name))
    return found


def pods_of(component: str) -> list[dict[str, Any]]:
    """The pods of a part of the installation."""
    return kube.items("pod", kube.SYSTEM, f"app.kubernetes.io/component={component}")


def kill(pods: list[dict[str, Any]], command: str) -> float:
    """Kills each pod's process, once all have one; returns when."""

    def found() -> list[list[int]]:
        pids = [processes(pod, command) for pod in pods]
        return pids if pids and all(pids) else []

    for pids in wait.until(f"each pod has a process {command}", found):
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def served(namespace: str, **spec: Any) -> str:
    """Creates a ModelDeployment, waits until it serves, and returns the name of its model."""
    model = f"{namespace}-{faults.NAME}"
    document = kube.model_deployment(faults.NAME, faults.TINY, kube.HUB, **spec)
    document["spec"]["model"]["servedModelName"] = [model]
    kube.apply(document, namespace)
    kube.until_ready(faults.NAME, namespace)
    return model


def not_ready(namespace: str) -> str | None:
    """The reason why it is not ready, if it is not."""
    ready = kube.condition(kube.get("mdep", faults.NAME, namespace), "Ready")
    return ready["reason"] if ready["status"] == "False" else None


def kill_runtime(namespace: str) -> tuple[float, str]:
    """Kills the only replica's process; returns when, and the first reason in the status."""
    pods = kube.items("pod", namespace, f"slipway.dev/model-deployment={faults.NAME}")
    at = kill(pods, "slipway-runtime serve")
    return at, wait.until("the status says so", lambda: not_ready(namespace), NAMED_SECONDS_MAX)


def runtime_killed(namespace: str, times: int = 1) -> Row:
    """Killed whenever it runs: named after the first kill, and served again after the last, with the kubelet's back-off."""
    served(namespace)
    at, reason = kill_runtime(namespace)
    named = round(time.monotonic() - at, 1)
    for _ in range(times - 1):
        at, reason = kill_runtime(namespace)
    kube.until_ready(faults.NAME, namespace, MENDED_SECONDS_MAX)
    return Row(f"runtime killed, {times} in a row", reason, named, round(time.monotonic() - at, 1))


def runtime_killed_again(namespace: str) -> Row:
    """A crash loop."""
    return runtime_killed(namespace, CRASHES)


def operator_killed(namespace: str) -> Row:
    """A change that is made while no operator runs; it has recovered when the change is rolled out."""
    served(namespace)
    start = kill(pods_of("operator"), "slipway-operator run")
    kube.patch(faults.NAME, namespace, {"engine": {"maxModelLen": 64}})
    kube.until_ready(faults.NAME, namespace, MENDED_SECONDS_MAX)
    return Row("operator killed, then a change", "–", None, round(time.monotonic() - start, 1))


def answers(model: str) -> bool:
    """Whether a request through the gateway is answered."""
    body = {"model": model, "max_tokens": 1, "messages": [{"role": "user", "content": "4"}]}
    request = urllib.request.Request(
        f"{GATEWAY}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def gateways_killed(namespace: str) -> Row:
    """Every gateway at once; models keep their status, and requests fail until one is back."""
    model = served(namespace)
    wait.until("the gateway answers", lambda: answers(model))
    start = kill(pods_of("gateway"), "slipway-operator gateway")
    wait.until("the gateway answers again", lambda: answers(model), MENDED_SECONDS_MAX, every=0.1)
    return Row("all gateways killed", "–", None, round(time.monotonic() - start, 1))


OF_PROCESSES = (runtime_killed, runtime_killed_again, operator_killed, gateways_killed)


def measured(only: str) -> Iterator[Row]:
    """Each fault in a namespace of its own, one after another; `only` keeps those whose name contains it."""
    cases = {fault.name: partial(of_spec, fault) for fault in faults.FAULTS}
    cases |= {case.__name__.replace("_", " "): case for case in OF_PROCESSES}
    for name, case in cases.items():
        if only not in name:
            continue
        with kube.namespace("bench") as namespace:
            try:
                yield case(namespace)
            except (AssertionError, kube.Refused) as failed:
                print(f"{name}: {failed}", file=sys.stderr, flush=True)
                yield Row(name, "**not as expected**", None, None)


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| fault | reason | named, s | serves again, s |", "|---|---|---|---|"]
    lines += [f"| {row.fault} | {row.reason} | {shown(row.named_s)} | {shown(row.recovered_s)} |" for row in rows]
    return "\n".join(lines)


def shown(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.1f}"
