"""`make run`: serves the demo's YAML on this machine, without a cluster, and prints the command that asks it."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import progress
import question

MODEL = progress.ROOT / "examples" / "models" / "tiny-trained"
EXAMPLE = progress.ROOT / "examples" / "modeldeployment.yaml"
PORT = os.environ.get("PORT", "8000")
URL = f"http://localhost:{PORT}"


def build() -> Path:
    """Builds the binary in the profile that the tests use too, and returns its path."""
    command = ["cargo", "build", "--locked", "--workspace", "--bin", "slipway-runtime"]
    progress.run("Build the runtime", command, progress.last_word_of_cargo)
    return Path(os.environ.get("CARGO_TARGET_DIR", progress.ROOT / "target")) / "debug" / "slipway-runtime"


def models(server: subprocess.Popen) -> list[str]:
    """The names of the served models, once the server is ready; none if it ended before."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{URL}/v1/models", timeout=5) as answer:
                return [model["id"] for model in json.load(answer)["data"]]
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.1)
    return []


def main() -> int:
    """Returns the exit status of the server."""
    try:
        binary = build()
    except progress.StepFailed as err:
        print(err, file=sys.stderr)
        return 1
    command = [str(binary), "serve", "--from", str(EXAMPLE), "--model", str(MODEL), "--port", PORT]
    server = subprocess.Popen(command)
    try:
        for name in models(server):
            print(f"\n{name} is ready. In another terminal:\n\n  {question.command(URL, name)}\n\nCtrl-C stops it.\n", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        # The terminal sends the signal to the server too.
        return server.wait()
    finally:
        server.terminate()


if __name__ == "__main__":
    sys.exit(main())
