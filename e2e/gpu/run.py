#!/usr/bin/env python3
"""Tests and measures Slipway on a machine with a card: `run.py BLOCK`, with a block from 1 to 4 (or `list`).

Each block ends within ten minutes and its steps do not need each other: one that fails or is too slow does not stop the
rest. Results are lines of JSON in results.jsonl beside this file; a table is printed last. cuBLASLt is used where
LD_LIBRARY_PATH or a wheel of this Python has it. Clocks are left alone.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BIN = HERE / "bin"
RESULTS = HERE / "results.jsonl"
CONFIGS = {
    "llama-8b": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": False, "hidden_act": "silu", "bos_token_id": 128000, "eos_token_id": 128001,
    },
    "llama-1b": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tie_word_embeddings": True, "hidden_act": "silu", "bos_token_id": 128000,
        "eos_token_id": 128001,
    },
}  # fmt: skip
SANITIZER = "compute-sanitizer"
BENCH = [BIN / "slipway-runtime", "bench", "--device", "cuda"]
# Name, seconds and command of the steps of each block.
BLOCKS = {
    "1": [
        ("driver", 20, ["nvidia-smi", "--query-gpu=name,driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"]),
        ("kernel tests", 240, [BIN / "kernels", "cuda", "--test-threads=1"]),
        ("kernel table", 240, [BIN / "cuda_table"]),
        ("version", 20, [BIN / "slipway-runtime", "--version"]),
    ],
    "2": [
        ("fixtures", 240, [BIN / "oracle_cuda", "--test-threads=1"]),
        ("decode 8B", 150, [*BENCH, HERE / "llama-8b", "--json", HERE / "llama-8b.json"]),
        ("decode 1B", 90, [*BENCH, HERE / "llama-1b", "--json", HERE / "llama-1b.json"]),
    ],
    "3": [
        (tool, 140, [SANITIZER, "--tool", tool, "--error-exitcode", "9", BIN / "kernels", "cuda", "--test-threads=1"])
        for tool in ("memcheck", "racecheck", "initcheck", "synccheck")
    ],
    "4": [
        ("profile 8B", 280, ["nsys", "profile", "--stats=true", "-o", HERE / "decode", *BENCH, HERE / "llama-8b", "--streams", "0"]),
        ("slowest kernels", 280, ["ncu", "--clock-control", "none", "--launch-count", "40", "--csv", *BENCH, HERE / "llama-1b", "--streams", "0"]),
    ],
}  # fmt: skip


def main():
    block = sys.argv[1] if len(sys.argv) == 2 else ""
    if block not in BLOCKS:
        for name, steps in BLOCKS.items():
            print(name, *[f"{step} (at most {seconds} s)" for step, seconds, _ in steps], sep="\n  ")
        sys.exit(block != "list")
    prepare()
    table = [run(block, *step) for step in BLOCKS[block]]
    width = max(len(row["step"]) for row in table)
    for row in table:
        print(f"{row['step']:{width}}  {row['outcome']:10} {row['seconds']:7.1f} s  {row['last']}")
    print(f"{RESULTS}")


def prepare():
    """The folders that the programs read."""
    for name, config in CONFIGS.items():
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
    root = Path(json.loads((HERE / "built.json").read_text())["root"])
    fixtures = root / "runtime/tests/fixtures/oracle"
    if not fixtures.exists():
        try:
            fixtures.parent.mkdir(parents=True, exist_ok=True)
            fixtures.symlink_to(HERE / "runtime/tests/fixtures/oracle")
        except OSError as error:
            print(f"the step `fixtures` will fail: {error}")


def run(block, step, seconds, command):
    """Runs a step; its lines of JSON are kept as results."""
    begun = time.monotonic()
    if shutil.which(str(command[0])) is None:
        outcome, text = "absent", f"{command[0]} is not installed"
    else:
        try:
            ran = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=seconds, env=environment())
            outcome, text = ("passed" if ran.returncode == 0 else f"failed {ran.returncode}"), ran.stdout + ran.stderr
        except subprocess.TimeoutExpired as expired:
            outcome, text = "too slow", (expired.stdout or b"").decode(errors="replace")
    elapsed = time.monotonic() - begun
    lines = [line for line in text.splitlines() if line.strip()]
    row = {"block": block, "step": step, "outcome": outcome, "seconds": elapsed, "last": (lines or [""])[-1][:120]}
    with RESULTS.open("a") as results:
        for line in [*(line for line in lines if line.startswith("{")), json.dumps(row)]:
            results.write(f"{line}\n")
    (HERE / f"{block}-{step.replace(' ', '-')}.log").write_text(text)
    return row


def environment():
    """This one with the libraries of wheels."""
    wheels = [str(folder) for site in sys.path for folder in Path(site).glob("nvidia/*/lib")]
    folders = [*os.environ.get("LD_LIBRARY_PATH", "").split(":"), *wheels]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, folders)), "RUST_BACKTRACE": "1"}


if __name__ == "__main__":
    main()
