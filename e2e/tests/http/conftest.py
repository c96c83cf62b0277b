"""The runtime as a process of its own, and the official client in front of it."""

import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

import models
import wait
from kube import ROOT

API_KEYS = ("first-key", "second-key")


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

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as err:
            return err.code, err.read()


def binary() -> Path:
    """The binary that cargo built."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    path = target / os.environ.get("PROFILE_DIR", "debug") / "slipway-runtime"
    assert path.exists(), f"{path} is not built: run `make build`"
    return path


def start(log: Path, *flags: str) -> Server:
    """Starts a server on a free port and waits until it is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [binary(), "serve", "--model", models.TINY, "--host", "127.0.0.1", "--port", str(port), *flags]
    with log.open("wb") as out:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=subprocess.STDOUT)
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


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    """The official client with a valid key."""
    return server.client()
