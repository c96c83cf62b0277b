"""Runs the fuzz targets: all of them (`make fuzz`), or some (`fuzz.py pickle config`).

FUZZ_SECONDS (60) is the time of each target. Installs cargo-fuzz into .cache. Needs no nightly compiler, because it uses
coverage only: the code contains no `unsafe` for a sanitizer to check. Findings are in fuzz/artifacts, the corpus is in
fuzz/corpus.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".cache" / "fuzz"
CARGO_FUZZ = ["cargo-fuzz", "0.13.2"]
SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))
# Bounds of a single input.
INPUT_SECONDS_MAX, MEMORY_MB_MAX = 10, 2048

# Each target, and its seeds in addition to the hostile corpus.
FIXTURES = "runtime/tests/fixtures"
TARGETS = {
    "safetensors": [f"{FIXTURES}/pickle/*.safetensors"],
    "pickle": [f"{FIXTURES}/pickle/*.bin"],
    "config": ["examples/models/*/config.json"],
    "tokenizer": [],
    "vocabulary": [f"{FIXTURES}/tokenizers/*/*"],
    "chat_template": [],
    "request": [],
}


def cargo_fuzz(*arguments: str) -> list[str]:
    return [str(TOOLS / "bin" / "cargo-fuzz"), *arguments]


def install() -> None:
    if not (TOOLS / "bin" / "cargo-fuzz").exists():
        print("… install cargo-fuzz", flush=True)
        name, version = CARGO_FUZZ
        subprocess.run(["cargo", "install", "--quiet", "--locked", name, "--version", version, "--root", TOOLS], check=True)


def build() -> None:
    print("… build the targets", flush=True)
    start = time.monotonic()
    subprocess.run(cargo_fuzz("build", "--sanitizer", "none"), cwd=ROOT, check=True)
    print(f"✓ build the targets  {time.monotonic() - start:.0f} s", flush=True)


def seeds(target: str) -> Iterator[bytes]:
    """The seeds of a target."""
    for pattern in [f"{FIXTURES}/hostile/{target}/*", *TARGETS[target]]:
        for path in ROOT.glob(pattern):
            yield path.read_bytes()
    if target == "config":
        # One of each architecture: the oracle's checkpoints contain their configuration.
        for path in ROOT.glob(f"{FIXTURES}/oracle/checkpoints/*.json"):
            yield json.dumps(json.loads(path.read_bytes())["files"]["config.json"]).encode()


def seed(target: str) -> Path:
    """Adds the seeds of a target to its corpus, each named by the hash of its content, and returns the corpus."""
    corpus = ROOT / "fuzz" / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    for content in seeds(target):
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
    return corpus


def fuzz(target: str) -> bool:
    """Runs a target. Returns whether it found nothing."""
    corpus, artifacts = seed(target), ROOT / "fuzz" / "artifacts" / target
    artifacts.mkdir(parents=True, exist_ok=True)
    n_seeds, known = len(list(corpus.iterdir())), set(artifacts.iterdir())
    limits = [f"-max_total_time={SECONDS}", f"-timeout={INPUT_SECONDS_MAX}", f"-rss_limit_mb={MEMORY_MB_MAX}"]
    command = cargo_fuzz("run", "--sanitizer", "none", target, "--", *limits, "-print_final_stats=1")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    stats = dict(re.findall(r"^stat::(\w+):\s+(\d+)", done.stdout, re.MULTILINE))
    coverage = re.findall(r"cov: (\d+)", done.stdout)
    executions = int(stats.get("number_of_executed_units", 0))
    summary = f"{executions:,} executions, {coverage[-1] if coverage else 0} branches, {n_seeds} inputs before, {len(list(corpus.iterdir()))} after"
    if done.returncode == 0 and executions > 0:
        print(f"✓ {target}  {summary}", flush=True)
        return True
    print(f"✗ {target}  {summary}\n{done.stdout[-4000:]}", flush=True)
    for found in sorted(set(artifacts.iterdir()) - known):
        print(f"  found: {found.relative_to(ROOT)}", flush=True)
    return False


def main() -> int:
    targets = sys.argv[1:] or list(TARGETS)
    install()
    build()
    print(f"… {len(targets)} targets, {SECONDS} s each", flush=True)
    failed = [target for target in targets if not fuzz(target)]
    print(f"{len(targets) - len(failed)} of {len(targets)} targets without a finding" + (f"; findings in: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
