"""Many ModelDeployments at once: time, requests to the API server, writes of a quiet minute, memory of the operator."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults
import kube
import wait
import yaml
from kube import kubectl
from operator_faults import pods_of, processes

SETTLED_SECONDS_MAX = 900
REST_SECONDS = 20
QUIET_SECONDS = 60
WRITES = {"POST", "PUT", "PATCH", "APPLY", "DELETE"}
OF_NODES = {"leases", "nodes", "events", "tokenreviews", "subjectaccessreviews", "serviceaccounts/token"}
"""What is written in every cluster at rest, by kubelets and leaders, and by the authorisation of requests."""


@dataclass(frozen=True)
class Shape:
    """ModelDeployments without a pod that runs, and the reason they settle on."""

    name: str
    reason: str
    spec: dict[str, Any]


SHAPES = (
    Shape("no replicas", "ScaledToZero", {"replicas": 0}),
    Shape("one replica that finds no node", "Unschedulable", {"scheduling": {"nodeSelector": {"disk": "none"}}}),
)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    shape: str
    n: int
    created_s: float
    settled_s: float
    requests: float
    applies: float
    quiet_requests: int
    quiet_writes: Counter[str]
    memory_before: int
    memory_after: int


@dataclass(frozen=True)
class Requests:
    """Requests to the API server so far."""

    by_verb_and_resource: Counter[tuple[str, str]]
    by_service_accounts: int

    @staticmethod
    def read() -> "Requests":
        """From its metrics. Beside the operator, gateways and the console have tokens of service accounts outside of kube-system."""
        counts: Counter[tuple[str, str]] = Counter()
        accounts = 0
        for line in kubectl("get", "--raw", "/metrics").splitlines():
            name, _, rest = line.partition("{")
            if name not in ("apiserver_request_total", "apiserver_flowcontrol_dispatched_requests_total"):
                continue
            labels, count = dict(re.findall(r'(\w+)="([^"]*)"', rest)), int(float(rest.rsplit(" ", 1)[1]))
            if name == "apiserver_request_total":
                resource = "/".join(part for part in (labels["resource"], labels["subresource"]) if part)
                counts[labels["verb"], resource] += count
            elif labels["flow_schema"] == "service-accounts":
                accounts += count
        return Requests(counts, accounts)

    def since(self, earlier: "Requests") -> "Requests":
        """The difference."""
        return Requests(
            self.by_verb_and_resource - earlier.by_verb_and_resource, self.by_service_accounts - earlier.by_service_accounts
        )

    def writes(self) -> Counter[str]:
        """Writes by verb and resource, without those of a cluster at rest."""
        found: Counter[str] = Counter()
        for (verb, resource), count in self.by_verb_and_resource.items():
            if verb in WRITES and resource.removesuffix("/status") not in OF_NODES:
                found[f"{verb} {resource}"] += count
        return found


def memory_mib() -> int:
    """Resident memory of the operators' processes."""
    total = 0
    for pod in pods_of("operator"):
        for pid in processes(pod, "slipway-operator run"):
            total += int(re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])
    return total // 1024


def n_settled(namespace: str, reason: str) -> int:
    """How many have this reason for their current generation."""
    return sum(
        kube.condition(mdep, "Ready").get("reason") == reason
        and mdep["status"].get("observedGeneration") == mdep["metadata"]["generation"]
        for mdep in kube.items("mdep", namespace)
    )


def of_shape(shape: Shape, n: int, say: Callable[[str], None]) -> Row:
    """Creates all, waits until they have settled, and listens for a minute."""
    documents = [kube.model_deployment(f"many-{i:04}", faults.TINY, kube.HUB, **shape.spec) for i in range(n)]
    with kube.namespace("bench") as namespace:
        memory_before, before = memory_mib(), Requests.read()
        start = time.monotonic()
        kubectl("create", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(documents))
        created = time.monotonic() - start

        def all_settled() -> bool:
            settled = n_settled(namespace, shape.reason)
            say(f"{shape.name}: {settled} of {n}")
            return settled == n

        wait.until("all have settled", all_settled, SETTLED_SECONDS_MAX, every=1)
        settled = time.monotonic() - start
        busy = Requests.read().since(before)
        say(f"{shape.name}: a quiet minute")
        time.sleep(REST_SECONDS)
        rested = Requests.read()
        time.sleep(QUIET_SECONDS)
        quiet = Requests.read().since(rested)
        applies = sum(count for (verb, _), count in busy.by_verb_and_resource.items() if verb == "APPLY")
        return Row(
            shape.name,
            n,
            created,
            settled,
            busy.by_service_accounts / n,
            applies / n,
            quiet.by_service_accounts,
            quiet.writes(),
            memory_before,
            memory_mib(),
        )


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| objects | created, s | settled, s | requests per object | applies per object | requests, writes in a quiet minute | memory before, after, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        writes = ", ".join(f"{count} {what}" for what, count in row.quiet_writes.items()) or "0"
        lines.append(
            f"| {row.n}, {row.shape} | {row.created_s:.1f} | {row.settled_s:.1f} | {row.requests:.1f} | {row.applies:.1f} "
            f"| {row.quiet_requests}, {writes} | {row.memory_before}, {row.memory_after} |"
        )
    return "\n".join(lines)
