"""`make run`: serves the demo's YAML on this machine, without a cluster, and prints the command that asks it."""

import json
import os
import subprocess
import sys

import local
import progress
import question

MODEL = progress.ROOT / "examples" / "models" / "tiny-trained"
EXAMPLE = progress.ROOT / "examples" / "modeldeployment.yaml"
PORT = os.environ.get("PORT", "8000")
URL = f"http://localhost:{PORT}"


def announce(models: bytes) -> None:
    """Prints the names of the served models and the command that asks each."""
    for model in json.loads(models)["data"]:
        name = model["id"]
        print(f"\n{name} is ready. In another terminal:\n\n  {question.command(URL, name)}\n\nCtrl-C stops it.\n", flush=True)


def main() -> int:
    """Returns the exit status of the server."""
    try:
        binary = local.built("Build the runtime", "slipway-runtime")
    except progress.StepFailed as err:
        print(err, file=sys.stderr)
        return 1
    command = [str(binary), "serve", "--from", str(EXAMPLE), "--model", str(MODEL), "--port", PORT]
    return local.serve(subprocess.Popen(command), f"{URL}/v1/models", announce)


if __name__ == "__main__":
    sys.exit(main())
