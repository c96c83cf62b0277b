"""Namespaces of their own for the tests, and the hub that they download from.

The tests run inside the cluster's network (`e2e/stack.py exec`), so Service names resolve as they do in a pod.
"""

import json
import os
import urllib.request
from collections.abc import Iterator

import openai
import pytest

import kube
from kube import HUB

if not os.environ.get("KUBECONFIG"):
    raise pytest.UsageError("no KUBECONFIG: run these tests with `make test`, which brings the cluster up")


class Hub:
    """The tests' hub: arming its faults and reading what it was asked."""

    endpoint = HUB

    def __init__(self) -> None:
        self._original = self._call("GET", "/control")

    def _call(self, method: str, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(HUB + path, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text.strip() else None

    def arm(self, repo: str, **policy: object) -> None:
        """Replaces one repository's policy."""
        config = json.loads(json.dumps(self._original))
        config.setdefault("repositories", {})[repo] = policy
        self._call("POST", "/control", config)

    def restore(self) -> None:
        """Back to what the manifest configures."""
        self._call("POST", "/control", self._original)

    def requests(self, repo: str) -> list[dict]:
        """What was asked of one repository, oldest first."""
        return [r for r in self._call("GET", "/control/requests") if repo in r["path"]]

    def forget(self) -> None:
        """Forgets the requests so far."""
        self._call("DELETE", "/control/requests")


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The hub, restored afterwards."""
    server = Hub()
    server.forget()
    yield server
    server.restore()


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own."""
    with kube.namespace(used_by=request.node.name) as name:
        yield name


def client_of(mdep: dict, api_key: str = "none") -> openai.OpenAI:
    """The official client on a ModelDeployment's own URL."""
    return openai.OpenAI(base_url=mdep["status"]["url"], api_key=api_key, max_retries=0, timeout=60)
