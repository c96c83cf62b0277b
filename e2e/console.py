"""`make console`: the console on this machine, with the rights of the kubeconfig, or of the local cluster if it runs."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path

import progress
import stack

PORT = os.environ.get("PORT", "8090")
URL = f"http://localhost:{PORT}/"


def build() -> Path:
    """Builds the binary in the profile that the tests use too, and returns its path."""
    command = ["cargo", "build", "--locked", "--workspace", "--bin", "slipway-operator"]
    progress.run("Build the console", command, progress.last_word_of_cargo)
    return Path(os.environ.get("CARGO_TARGET_DIR", progress.ROOT / "target")) / "debug" / "slipway-operator"


def environment() -> dict[str, str]:
    """The environment with a kubeconfig: the user's own, else the local cluster's."""
    own = os.environ.get("KUBECONFIG") or (Path.home() / ".kube" / "config").exists()
    if own:
        return dict(os.environ)
    if subprocess.run([*stack.CLUSTER, "status"], capture_output=True, check=False).returncode != 0:
        raise progress.StepFailed("there is no kubeconfig and no local cluster; `make demo` starts one")
    return stack.cluster_environment()


def is_up(server: subprocess.Popen) -> bool:
    """Whether the pages are served; waits until they are or the server has ended."""
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"{URL}livez", timeout=1).close()
            return True
        except (urllib.error.URLError, TimeoutError):
            continue
    return False


def main() -> int:
    """Returns the exit status of the server."""
    try:
        command = [str(build()), "console", "--listen", f"127.0.0.1:{PORT}", "--use-kubeconfig", "--log-level", "warn"]
        server = subprocess.Popen(command, env=environment())
    except progress.StepFailed as err:
        print(err, file=sys.stderr)
        return 1
    try:
        if is_up(server):
            print(f"\nThe console is at {URL} with the rights of your kubeconfig. Ctrl-C stops it.\n", flush=True)
            if sys.stdout.isatty():
                webbrowser.open(URL)
        return server.wait()
    except KeyboardInterrupt:
        # The terminal sends the signal to the server too.
        return server.wait()
    finally:
        server.terminate()


if __name__ == "__main__":
    sys.exit(main())
