"""The official `openai` client for Node: one test here for each test in `node/openai.test.js`."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import API_KEYS, Server
from kube import ROOT

SUITE = Path(__file__).parent / "node" / "openai.test.js"
PACKAGES = ROOT / ".cache" / "node" / "node_modules"
NAMES = re.findall(r"^test\('([^']+)'", SUITE.read_text(), re.MULTILINE)


@dataclass(frozen=True)
class Verdict:
    """How a test ended, and all that Node said about it."""

    passed: bool
    text: str


@pytest.fixture(scope="module")
def verdicts(server: Server, embedder: Server) -> dict[str, Verdict]:
    """Runs the whole suite once and reads its TAP."""
    node = shutil.which("node")
    if not node or not (PACKAGES / "openai").is_dir():
        pytest.skip("Node or its openai package is not installed (`make test` installs them where apt-get is)")
    environment = {
        "PATH": os.environ["PATH"],
        "NODE_PATH": str(PACKAGES),
        "SERVER_URL": server.url,
        "EMBEDDINGS_URL": embedder.url,
        "API_KEY": API_KEYS[0],
    }
    done = subprocess.run(
        [node, "--test", "--test-reporter=tap", str(SUITE)], env=environment, capture_output=True, text=True, timeout=300
    )
    found = {}
    for block in re.split(r"^# Subtest: ", done.stdout, flags=re.MULTILINE)[1:]:
        name, _, text = block.partition("\n")
        result = re.search(r"^(not )?ok \d+ - ", text, re.MULTILINE)
        found[name.strip()] = Verdict(bool(result) and not result[1], text)
    assert found, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("name", NAMES)
def test_openai_for_node(verdicts: dict[str, Verdict], name: str) -> None:
    assert name in verdicts, f"Node did not run it; it ran {sorted(verdicts)}"
    assert verdicts[name].passed, verdicts[name].text
