"""The commands that `make run`, the README and the chart print, run as they are printed."""

import os
import re
import signal
import socket
import subprocess

from kube import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", "charts/slipway/templates/NOTES.txt", "e2e/demo.py", "e2e/run.py")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_make_run_prints_a_command_that_streams_an_answer() -> None:
    environment = os.environ | {"PORT": str(free_port())}
    run = subprocess.Popen(["make", "run"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        printed = next(line.strip() for line in run.stdout if line.strip().startswith("curl "))
        done = subprocess.run(["sh", "-c", printed], capture_output=True, text=True, timeout=60)
        assert done.stdout.rstrip().endswith("data: [DONE]"), (printed, done)
    finally:
        os.killpg(run.pid, signal.SIGINT)
        run.wait(timeout=60)


def test_every_make_target_that_is_printed_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        printed = re.findall(r"(?:`|^\s*|; )make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
        assert set(printed) <= targets, (page, set(printed) - targets)


def test_every_file_that_a_printed_command_names_exists() -> None:
    for page in PAGES:
        for path in re.findall(r"(?:-f |python3 |bash |install slipway )((?:examples|e2e|charts)/[\w./-]+)", (ROOT / page).read_text()):
            assert (ROOT / path).exists(), (page, path)
