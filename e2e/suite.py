"""Everything CI runs: `make test`.

Two lanes side by side: the Rust one (build, lint, unit tests, black-box HTTP) and the cluster one (Kubernetes from
source, images, chart, tests on real pods). Prints each step as it ends and one count at the close.
"""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import progress
import stack

VENV = progress.ROOT / ".cache" / "venv"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
NODE = progress.ROOT / ".cache" / "node"
PYTEST = [str(VENV / "bin" / "pytest"), "-c", str(progress.ROOT / "e2e" / "pytest.ini"), "--color=no"]


@dataclass
class Count:
    """How many tests ended how, and which steps did not end well."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    broken: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, output: str) -> None:
        """Adds what a test runner printed of its own tests."""
        with self._lock:
            for passed, failed, ignored in re.findall(r"test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", output):
                self.passed, self.failed, self.skipped = self.passed + int(passed), self.failed + int(failed), self.skipped + int(ignored)
            for line in re.findall(r"^=+ (.*) in [\d.]+s.*=+$", output, re.MULTILINE):
                for number, word in re.findall(r"(\d+) (passed|failed|errors?|skipped)", line):
                    name = "failed" if word.startswith("error") else word
                    setattr(self, name, getattr(self, name) + int(number))
            self.reasons += re.findall(r"^SKIPPED .*$", output, re.MULTILINE)
            # A Rust test has no other way to say that it cannot run here.
            unable = re.findall(r"^skipped: (.*)$", output, re.MULTILINE)
            self.skipped += len(unable)
            self.reasons += unable

    def skip(self, why: str) -> None:
        """Counts a step that cannot run here."""
        print(f"– skipped: {why}", flush=True)
        with self._lock:
            self.skipped += 1
            self.reasons.append(why)


def step(count: Count, title: str, command: list[str], **options) -> bool:
    """Runs one step; a failure is printed and remembered, and later steps decide whether they can go on."""
    start = time.monotonic()
    print(f"… {title}", flush=True)
    log = progress.LOGS / (re.sub(r"\W+", "-", title.lower()).strip("-") + ".log")
    progress.LOGS.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, cwd=progress.ROOT, **options)
    output = log.read_text(errors="replace")
    count.read(output)
    seconds = time.monotonic() - start
    if done.returncode == 0:
        print(f"✓ {title}  {seconds:.0f} s", flush=True)
        return True
    print(f"✗ {title}  {seconds:.0f} s, exit {done.returncode}\n{output[-12000:]}\nwhole log: {log}", flush=True)
    with count._lock:
        count.broken.append(title)
    return False


def clients(count: Count) -> bool:
    """The Python clients, in an environment of their own."""
    requirements = progress.ROOT / "e2e" / "requirements.txt"
    if not (VENV / "bin" / "pip").exists():
        step(count, "Make a Python environment", [sys.executable, "-m", "venv", str(VENV)])
    return step(count, "Install the test clients", [str(VENV / "bin" / "pip"), "install", "--quiet", "-r", str(requirements)])


def node_client(count: Count) -> None:
    """The official client for Node. Its tests skip, and are counted, where Node cannot be had."""
    if not shutil.which("npm") and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        step(count, "Update the package lists", ["apt-get", "-qq", "update"], env=environment)
        install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", "nodejs", "npm"]
        step(count, "Install Node", install, env=environment)
    if not shutil.which("npm"):
        return
    NODE.mkdir(parents=True, exist_ok=True)
    shutil.copy(progress.ROOT / "e2e" / "tests" / "http" / "node" / "package.json", NODE)
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"]
    step(count, "Install the Node client", ["npm", "install", "--prefix", str(NODE), *quiet])


def browser(count: Count) -> None:
    """Debian's Chromium, for the tests of the console. They skip, and are counted, where it cannot be had."""
    if any(map(shutil.which, BROWSERS)) or not shutil.which("apt-get") or os.geteuid() != 0:
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    step(count, "Update the package lists", ["apt-get", "-qq", "update"], env=environment)
    install = ["apt-get", "-qq", "install", "-y", "--no-install-recommends", "chromium", "fonts-dejavu-core"]
    step(count, "Install Chromium", install, env=environment)


def rust_lane(count: Count, built: threading.Event) -> None:
    """Build, then unit tests, black-box HTTP, and lint last because it compiles everything once more."""
    try:
        if not step(count, "Build every crate", ["cargo", "build", "--locked", "--workspace", "--all-targets"]):
            return
    finally:
        built.set()
    step(count, "Unit, property, simulator and oracle tests", ["cargo", "test", "--locked", "--workspace", "--no-fail-fast"])
    if (VENV / "bin" / "pytest").exists():
        step(count, "Black-box HTTP tests", [*PYTEST, "e2e/tests/http"])
        step(count, "An image with a model inside", [*PYTEST, "e2e/tests/bake"])
        step(count, "Tests of the cluster tool", [*PYTEST, "e2e/cluster"])
    step(count, "Formatting", ["cargo", "fmt", "--check"])
    step(count, "Lint", ["cargo", "clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
    step(count, "Licences and sources of dependencies", [sys.executable, "e2e/deny.py"])


def cluster_lane(count: Count, built: threading.Event) -> None:
    """Kubernetes, then images, chart and the tests on real pods."""
    if os.geteuid() != 0:
        count.skip("cluster tests: the local cluster needs root; run `sudo make test`")
        return
    ours = subprocess.run([*stack.CLUSTER, "status"], capture_output=True, cwd=progress.ROOT).returncode != 0
    try:
        cluster_tests(count, built)
    finally:
        if ours:
            step(count, "Remove the cluster", [*stack.CLUSTER, "down"])


def cluster_tests(count: Count, built: threading.Event) -> None:
    """From sources to tests on real pods; what was not running before is removed by the caller."""
    if not step(count, "Build and start Kubernetes", [*stack.CLUSTER, "up"]):
        return
    built.wait()
    if "Build every crate" in count.broken:
        return
    if step(count, "Images, chart and hub", [sys.executable, "e2e/stack.py", "up"]):
        command = [sys.executable, "e2e/stack.py", "exec", *PYTEST, "e2e/tests/cluster"]
        if not step(count, "Cluster tests", command):
            step(count, "What the cluster looks like", [sys.executable, "e2e/stack.py", "describe"])


def main() -> int:
    """Both lanes; 0 only if everything that ran passed and something ran."""
    start = time.monotonic()
    count = Count()
    clients(count)
    node_client(count)
    browser(count)
    built = threading.Event()
    lanes: list[Callable[[Count, threading.Event], None]] = [rust_lane, cluster_lane]
    threads = [threading.Thread(target=lane, args=(count, built)) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for reason in count.reasons:
        print(f"skipped: {reason}")
    for title in count.broken:
        print(f"not passed: {title}")
    print(f"whole suite: {(time.monotonic() - start) / 60:.1f} min")
    failed = max(count.failed, len(count.broken))
    print(f"{count.passed} passed, {failed} failed, {count.skipped} skipped", flush=True)
    return 0 if count.passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
