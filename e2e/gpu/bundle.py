#!/usr/bin/env python3
"""What a machine with a card needs to test and measure Slipway, as one file: `bundle.py` prints where it is.

The archive holds the stripped programs, the fixtures and run.py; nothing on the other machine is compiled or downloaded.
PROFILE=dev takes the profile of the tests in place of the release build.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROFILE = [] if os.environ.get("PROFILE") == "dev" else ["--release"]
SIZE_MAX = 64 << 20
# What cargo builds, and the names of the programs.
PROGRAMS = (
    (["build", "--workspace", "--bin", "slipway-runtime"], "slipway-runtime"),
    (["build", "--workspace", "--example", "cuda_table"], "cuda_table"),
    (["test", "--workspace", "--test", "oracle_cuda", "--no-run"], "oracle_cuda"),
    (["test", "-p", "kernels", "--lib", "--no-run"], "kernels"),
)
FIXTURES = Path("runtime/tests/fixtures/oracle")


def main():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "slipway-gpu.tar.gz"
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "slipway-gpu"
        (folder / "bin").mkdir(parents=True)
        for command, name in PROGRAMS:
            strip(built(command, name), folder / "bin" / name)
        shutil.copytree(ROOT / FIXTURES, folder / FIXTURES)
        shutil.copy(ROOT / "e2e" / "gpu" / "run.py", folder)
        # The tests look for the fixtures where they were compiled.
        (folder / "built.json").write_text(json.dumps({"root": str(ROOT), "commit": commit()}))
        with tarfile.open(target, "w:gz") as archive:
            archive.add(folder, "slipway-gpu")
    size = target.stat().st_size
    print(f"{target}  {size / 1e6:.0f} MB")
    if size > SIZE_MAX:
        sys.exit(f"bundle: more than {SIZE_MAX >> 20} MiB; PROFILE=dev programs are larger than those of a release")


def commit():
    ran = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def built(command, name):
    """Builds a program of the workspace; returns its file."""
    command = ["cargo", *command, "--locked", *PROFILE, "--message-format=json"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if ran.returncode:
        sys.exit(f"bundle: {' '.join(command)} failed")
    messages = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    found = [m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == name]
    return Path(found[-1])


def strip(program, to):
    subprocess.run(["strip", "--strip-debug", "-o", to, program], check=True)


if __name__ == "__main__":
    main()
