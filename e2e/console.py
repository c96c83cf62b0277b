"""`make console`: the console on this machine, with the rights of the kubeconfig, or of the local cluster if it runs."""

import os
import subprocess
import sys
import webbrowser
from pathlib import Path

import local
import progress
import stack

PORT = os.environ.get("PORT", "8090")
URL = f"http://localhost:{PORT}/"


def environment() -> dict[str, str]:
    """The environment with a kubeconfig: the user's own, else the local cluster's."""
    own = os.environ.get("KUBECONFIG") or (Path.home() / ".kube" / "config").exists()
    if own:
        return dict(os.environ)
    if subprocess.run([*stack.CLUSTER, "status"], capture_output=True, check=False).returncode != 0:
        raise progress.StepFailed("there is no kubeconfig and no local cluster; `make demo` starts one")
    return stack.cluster_environment()


def announce(_: bytes) -> None:
    """Prints the address, and opens it for a person."""
    print(f"\nThe console is at {URL} with the rights of your kubeconfig. Ctrl-C stops it.\n", flush=True)
    if sys.stdout.isatty():
        webbrowser.open(URL)


def main() -> int:
    """Returns the exit status of the server."""
    try:
        binary = local.built("Build the console", "slipway-operator")
        command = [str(binary), "console", "--listen", f"127.0.0.1:{PORT}", "--use-kubeconfig", "--log-level", "warn"]
        server = subprocess.Popen(command, env=environment())
    except progress.StepFailed as err:
        print(err, file=sys.stderr)
        return 1
    return local.serve(server, f"{URL}livez", announce)


if __name__ == "__main__":
    sys.exit(main())
