"""A binary of ours that serves on this machine until it is stopped: what `make run` and `make console` share."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import progress


def built(title: str, name: str) -> Path:
    """Builds a binary in the profile that the tests use too, and returns its path."""
    command = ["cargo", "build", "--locked", "--workspace", "--bin", name]
    progress.run(title, command, progress.last_word_of_cargo)
    return Path(os.environ.get("CARGO_TARGET_DIR", progress.ROOT / "target")) / "debug" / name


def answer(server: subprocess.Popen, url: str) -> bytes | None:
    """The first answer at `url`; None if the server ended before."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read()
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    return None


def serve(server: subprocess.Popen, url: str, ready: Callable[[bytes], None]) -> int:
    """Calls `ready` with the first answer at `url`, waits for the end of the server, and returns its exit status."""
    try:
        first = answer(server, url)
        if first is not None:
            ready(first)
        return server.wait()
    except KeyboardInterrupt:
        # The terminal sends the signal to the server too.
        return server.wait()
    finally:
        server.terminate()
