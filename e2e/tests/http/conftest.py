"""The runtime as a process of its own, and the official clients in front of it."""

import json
import os
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import openai
import pytest

import models
import wait
import weights
from kube import ROOT

API_KEYS = ("first-key", "second-key")


@dataclass(frozen=True)
class Answer:
    """What came back over plain HTTP."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    """A running runtime."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, api_key: str = API_KEYS[0]) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=60)

    def send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Plain HTTP with the first key, for what no official client sends."""
        data = None if body is None else json.dumps(body).encode()
        given = {"Authorization": f"Bearer {API_KEYS[0]}", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data=data, headers=given, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as err:
            return Answer(err.code, err.headers, err.read())

    def get(self, path: str) -> tuple[int, bytes]:
        answer = self.send("GET", path)
        return answer.status, answer.body

    def post(self, path: str, body: Any) -> Answer:
        return self.send("POST", path, body)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = self.get("/metrics")[1].decode()
        return sum(float(m) for m in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    def wait_until_idle(self) -> None:
        """No request runs or waits, and no block is held."""
        gauges = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        wait.until("the engine is idle", lambda: all(self.metric(name) == 0 for name in gauges))


def binary() -> Path:
    """The binary that cargo built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / os.environ.get("PROFILE_DIR", "debug") / "slipway-runtime"
    assert path.exists(), f"{path} is not built: run `make build`"
    return path


def start(log: Path, *flags: str, model: Path = models.TINY, env: dict[str, str] | None = None) -> Server:
    """Starts a server on a free port and waits until it is ready. `env` adds to the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary(), "serve", "--model", model, "--host", "127.0.0.1", "--port", str(port), *flags]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=out, stderr=subprocess.STDOUT, env=os.environ | (env or {})
        )
    server = Server(process, port, log)

    def ready() -> bool:
        if process.poll() is not None:
            pytest.fail(f"the runtime ended with {process.returncode}:\n{log.read_text()}")
        try:
            return server.get("/readyz")[0] == 200
        except OSError:
            return False

    wait.until("the runtime is ready", ready)
    return server


def stop(server: Server) -> int:
    """Sends SIGTERM and returns the exit code."""
    server.process.terminate()
    return server.process.wait(timeout=120)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with API keys for all tests that do not need their own."""
    log = tmp_path_factory.mktemp("runtime") / "log"
    running = start(log, "--served-model-name", "tiny,tiny-alias", "--api-key", ",".join(API_KEYS))
    yield running
    assert stop(running) == 0, running.log.read_text()


def serve(factory: pytest.TempPathFactory, name: str, checkpoint: str) -> Iterator[Server]:
    """A server of one of the oracle's checkpoints, under `name`."""
    folder = factory.mktemp(name)
    weights.write(weights.read(checkpoint), folder / "model")
    flags = ("--served-model-name", name, "--api-key", ",".join(API_KEYS))
    running = start(folder / "log", *flags, model=folder / "model")
    yield running
    assert stop(running) == 0, running.log.read_text()


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model that makes normalised embeddings of 64 numbers."""
    yield from serve(tmp_path_factory, "embedder", "bge-m3-xlmr-cls")


@pytest.fixture(scope="session")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A cross-encoder."""
    yield from serve(tmp_path_factory, "reranker", "bge-reranker-xlmr")


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    """The official client with a valid key."""
    return server.client()
