"""The commands that the demo and the chart print, run as they are printed."""

import json
import re
import socket
import subprocess

import demo
import kube
import wait
from kube import ROOT, kubectl


def indented(text: str) -> list[str]:
    """The lines that a reader copies."""
    return [line.strip() for line in text.splitlines() if line.startswith("  ") and line.strip()]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_the_demo_prints_runs(namespace: str) -> None:
    example = kube.shipped_example()
    kube.apply(example, namespace)
    name = example["metadata"]["name"]
    status = kube.until_ready(name, namespace)["status"]
    lines = indented(demo.next_commands(status, name, namespace))
    assert lines.pop().startswith("make cluster-down")
    environment = lines.pop(0)
    # It serves until it is stopped; its own test starts it.
    lines = [line for line in lines if not line.startswith("make console")]
    for line in lines:
        if line.endswith("&"):
            forward = subprocess.Popen(["bash", "-c", f"{environment}\nexec {line.rstrip('& ')}"], cwd=ROOT)
            port = int(re.search(r"(\d+):80", line)[1])
            wait.until("the port is forwarded", lambda port=port: is_open(port))
            continue
        done = subprocess.run(["bash", "-c", f"{environment}\n{line}"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and done.stdout.strip(), (line, done)
        if line.startswith("curl"):
            assert "data: [DONE]" in done.stdout or json.loads(done.stdout)["data"], done
            forward.terminate()
            forward.wait()


def test_what_the_chart_prints_runs() -> None:
    notes = subprocess.run(["helm", "get", "notes", "slipway", "-n", "slipway-system"], capture_output=True, text=True, check=True)
    commands = [line for line in indented(notes.stdout.replace("\\\n", "")) if line.startswith("kubectl ")]
    assert len(commands) >= 3, notes.stdout
    for command in commands:
        words = command.split()[1:]
        if words[0] in ("apply", "annotate"):
            words.append("--dry-run=server")
        kubectl(*[word for word in words if word != "-w"])
