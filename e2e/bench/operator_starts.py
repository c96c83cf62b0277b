"""Starts from zero: from a request at the gateway to its first token, and the part of it until replicas are written."""

import json
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import faults
import kube
import wait
from operator_faults import GATEWAY, pods_of

AUTOSCALING = {"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 10}
BUCKET = re.compile(r'^slipway_operator_activation_duration_seconds_bucket\{le="([^"]+)"\} (\d+)', re.MULTILINE)


@dataclass(frozen=True)
class Starts:
    """What was measured: seconds to the first token in rising order, and starts by the bound of their activation."""

    first_token_s: list[float]
    activations: Counter[float]

    def activation_s(self, share: float) -> float:
        """The bound below which this share of the activations was."""
        n = max(self.activations.values())
        return min(bound for bound, count in self.activations.items() if count >= share * n)


def activations() -> Counter[float]:
    """Starts so far that took at most so many seconds from the first held request to the written number."""
    counts: Counter[float] = Counter()
    for pod in pods_of("operator"):
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8080/metrics", timeout=10) as answer:
            for bound, count in BUCKET.findall(answer.read().decode()):
                counts[float(bound)] += int(count)
    return counts


def first_token_s(model: str) -> float:
    """One streamed request until its first piece of text."""
    body = {"model": model, "stream": True, "max_tokens": 8, "messages": [{"role": "user", "content": "Count from 4 to 9."}]}
    request = urllib.request.Request(
        f"{GATEWAY}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    start = time.monotonic()
    with urllib.request.urlopen(request, timeout=180) as answer:
        for line in answer:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return time.monotonic() - start
    raise AssertionError(f"no text from {model}")


def measured(n: int, say: Callable[[str], None]) -> Starts:
    """One start of each of `n` models, one after another, each from zero and without a cached download."""

    def at_zero(namespace: str) -> bool:
        states = [kube.condition(mdep, "AutoscalingActive").get("reason") for mdep in kube.items("mdep", namespace)]
        say(f"{states.count('WaitingForRequests')} of {n} at zero")
        return states == ["WaitingForRequests"] * n and not kube.items("pod", namespace)

    def seconds(namespace: str) -> Iterator[float]:
        for i in range(n):
            say(f"start {i + 1} of {n}")
            yield first_token_s(f"{namespace}-{i}")

    with kube.namespace("bench") as namespace:
        for i in range(n):
            document = kube.model_deployment(f"zero-{i}", faults.TINY, kube.HUB, autoscaling=AUTOSCALING)
            document["spec"]["model"]["servedModelName"] = [f"{namespace}-{i}"]
            kube.apply(document, namespace)
        wait.until("all are at zero", lambda: at_zero(namespace), 600, every=1)
        before = activations()
        return Starts(sorted(seconds(namespace)), activations() - before)


def table(starts: Starts) -> str:
    """Markdown."""
    tokens = starts.first_token_s
    return "\n".join(
        [
            "| starts from zero | p50 | slowest |",
            "|---|---|---|",
            f"| request at the gateway to first token, s, of {len(tokens)} | {tokens[len(tokens) // 2]:.1f} | {tokens[-1]:.1f} |",
            f"| of it until replicas are written, s (p99 in place of the slowest) | ≤ {starts.activation_s(0.5):g} | ≤ {starts.activation_s(0.99):g} |",
        ]
    )
