"""`make bench-peers`: Slipway beside llama.cpp and transformers on this machine, with the same threads and the same weights.

Installs the peers once into .cache/peers (llama.cpp from the sources in llama-cpp-python's archive, for this processor; torch
without its libraries for GPUs) and makes checkpoints of random weights. Then rounds of prefill, decode and batches of each
engine in turn, and 8 streams over HTTP against llama-server. What cannot be installed or measured is named, and the rest goes
on. Writes runtime/bench/results/<date>-<processor>.json and .md. Only ratios of one run mean anything.
"""

import argparse
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import progress  # noqa: E402
import streams  # noqa: E402
from peers_report import markdown  # noqa: E402

HERE = Path(__file__).resolve().parent
PEERS = (progress.ROOT / ".cache" / "peers").resolve()  # may be a link to those of another clone
PYTHON = PEERS / "venv" / "bin" / "python"
LLAMA = PEERS / "llama.cpp" / "bin"
RESULTS = progress.ROOT / "runtime" / "bench" / "results"
LLAMA_SOURCES = "llama-cpp-python==0.3.36"
TORCH = "torch==2.15.0"
LLAMA_PROGRAMS = ["llama-bench", "llama-batched-bench", "llama-quantize", "llama-server"]
SHAPES = ["tinyllama-1.1b", "qwen2.5-0.5b"]
# llama.cpp's format, and the value of QUANTIZATION that compares with it; None: none.
FORMATS = {"bf16": None, "Q8_0": "ifq", "Q4_0": "ifq_nf4"}
STEP_S = 180  # most of one program of a round; what is slower is named and left out
SERVED_SHAPE = "tinyllama-1.1b"


class Peers:
    """What is installed here."""

    def __init__(self, n_threads: int) -> None:
        self.n_threads = n_threads
        self.notes: list[str] = []

    def attempt(self, what: str, work) -> object | None:
        """The result of a step; None if it fails, which is noted."""
        try:
            return work()
        except (progress.StepFailed, OSError, ValueError, subprocess.SubprocessError, KeyError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            self.notes.append(f"{what}: {reason[0][:200]}")
            print(f"  not measured: {self.notes[-1]}", flush=True)
            return None

    def install(self) -> None:
        PEERS.mkdir(parents=True, exist_ok=True)
        self.attempt("Python environment", self._python)
        self.attempt("llama.cpp", self._llama)
        self.attempt("transformers", self._torch)
        for shape in SHAPES:
            self.attempt(f"weights of {shape}", lambda shape=shape: self._weights(shape))

    def _python(self) -> None:
        if not PYTHON.exists():
            progress.run("Make a Python environment", [sys.executable, "-m", "venv", str(PEERS / "venv")])
        mark, wanted = PEERS / "requirements.txt", HERE / "requirements-peers.txt"
        if not mark.exists() or mark.read_text() != wanted.read_text():
            progress.run("Install what the peers need", pip("install", "-r", str(wanted)))
            shutil.copy(wanted, mark)

    def _torch(self) -> None:
        mark = PEERS / "torch.txt"
        if not mark.exists() or mark.read_text() != TORCH:
            progress.run("Install torch", pip("install", "--no-deps", TORCH))
            packages = next((PEERS / "venv" / "lib").glob("python*/site-packages"))
            stubs = [str(PYTHON), str(HERE / "torch_without_gpu.py"), str(packages)]
            progress.run("Let torch load without libraries for GPUs", stubs)
            mark.write_text(TORCH)

    def _llama(self) -> None:
        if all((LLAMA / name).exists() for name in LLAMA_PROGRAMS):
            return
        sources = PEERS / "src"
        if not (sources / "vendor" / "llama.cpp" / "CMakeLists.txt").exists():
            download = pip("download", "--no-deps", "--no-binary", ":all:", LLAMA_SOURCES, "-d", str(PEERS / "sdist"))
            progress.run("Download the sources of llama.cpp", download)
            archive = next((PEERS / "sdist").glob("*.tar.gz"))
            with tarfile.open(archive) as opened:
                opened.extractall(PEERS, filter="data")
            (PEERS / archive.name.removesuffix(".tar.gz")).rename(sources)
        options = ["GGML_NATIVE=ON", "GGML_CCACHE=OFF", "BUILD_SHARED_LIBS=OFF", "CMAKE_BUILD_TYPE=Release"]
        options += [f"LLAMA_{name}=OFF" for name in ("CURL", "OPENSSL", "USE_PREBUILT_UI", "BUILD_TESTS", "BUILD_EXAMPLES", "BUILD_APP")]
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        configure = ["cmake", "-S", str(sources / "vendor" / "llama.cpp"), "-B", str(LLAMA.parent), *generator]
        progress.run("Configure llama.cpp", [*configure, *(f"-D{option}" for option in options)])
        # One job at a low priority, because it takes long and others may use the machine.
        build = ["nice", "-n", "10", "cmake", "--build", str(LLAMA.parent), "-j", "1", "--target", *LLAMA_PROGRAMS]
        progress.run("Build llama.cpp", build, built)

    def _weights(self, shape: str) -> None:
        progress.run(f"Make the weights of {shape}", [str(PYTHON), str(HERE / "shapes.py"), shape, str(PEERS)], str.strip)
        for name in FORMATS:
            file = gguf(shape, name)
            if not file.exists():
                partial = file.with_suffix(".partial")
                command = [LLAMA / "llama-quantize", gguf(shape, "bf16"), partial, name, str(self.n_threads)]
                progress.run(f"Make {file.name}", [str(word) for word in command])
                partial.rename(file)


def pip(*words: str) -> list[str]:
    return ["nice", "-n", "10", str(PYTHON), "-m", "pip", words[0], "--quiet", *words[1:]]


def built(line: str) -> str | None:
    """The detail of a build: how far it is."""
    found = re.match(r"\[ *(\d+/\d+|\d+%)\]", line)
    return found.group(1) if found else None


def gguf(shape: str, name: str) -> Path:
    return PEERS / f"{shape}-{name}.gguf"


def run(command: list[object]) -> str:
    """The output of a program that may take STEP_S."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=STEP_S, cwd=progress.ROOT)
    if done.returncode != 0:
        raise ValueError(f"{Path(words[0]).name} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


class Round:
    """One measurement of each engine."""

    def __init__(self, peers: Peers, binary: Path, seconds: float) -> None:
        self.peers, self.binary, self.seconds = peers, binary, seconds
        self.words = ["--threads", str(peers.n_threads)]

    def ours(self, shape: str, quantization: str | None) -> dict:
        file = PEERS / "ours.json"
        what = ["--prefill", 512, "--decode", "1,16", "--context", 80, "--streams", 0, "--seconds", self.seconds]
        flags = ["--quantization", quantization] if quantization else []
        run([self.binary, "bench", PEERS / shape, "--device", "cpu", *self.words, *what, *flags, "--json", file])
        report = json.loads(file.read_text())
        rates = {name_of(step): step["tokens_per_s"] for step in report["steps"]}
        shares = {f"{name_of(step)}_gb_s": step["gb_s"] for step in report["steps"]}
        return {**rates, **shares, "probe": report["probe"], "machine": report["machine"]}

    def llama(self, shape: str, name: str) -> dict:
        file, n_threads = gguf(shape, name), self.peers.n_threads
        text = run([LLAMA / "llama-bench", "-m", file, "-p", 512, "-n", 128, "-r", 1, "-t", n_threads, "-o", "json"])
        rates = {"prefill_512" if row["n_prompt"] else "decode_1": row["avg_ts"] for row in json.loads(text)}
        # One shared prompt of 64 tokens, then 32 tokens of each sequence.
        what = ["-pps", "-npp", 64, "-ntg", 32, "-npl", 16, "-c", 4096, "-t", n_threads, "--output-format", "jsonl"]
        text = run([LLAMA / "llama-batched-bench", "-m", file, *what])
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return {**rates, "decode_16": rows[-1]["speed_tg"]}

    def transformers(self, shape: str, dtype: str) -> dict:
        text = run([PYTHON, HERE / "peer_transformers.py", PEERS / shape, self.peers.n_threads, dtype])
        return json.loads(text.splitlines()[-1])


def name_of(step: dict) -> str:
    return "prefill_512" if step["kind"] == "prefill" else f"decode_{step['sequences']}"


def rounds(each: Round, deadline: float, quantizes: bool, dtype: str) -> dict:
    """Rounds as long as another one ends before the deadline, at least one; the medians of each engine and shape."""
    seen: dict[tuple[str, str, str], list[dict]] = {}
    jobs = []
    for shape in SHAPES:
        for name, quantization in FORMATS.items():
            if quantization is None or quantizes:
                jobs.append(("slipway", shape, name, lambda s=shape, q=quantization: each.ours(s, q)))
            jobs.append(("llama.cpp", shape, name, lambda s=shape, n=name: each.llama(s, n)))
        jobs.append(("transformers", shape, dtype, lambda s=shape: each.transformers(s, dtype)))
    failed: set[tuple[str, str, str]] = set()
    n_rounds, took = 0, 0.0
    while n_rounds == 0 or time.monotonic() + took < deadline:
        begun = time.monotonic()
        for engine, shape, name, work in jobs:
            key = (engine, shape, name)
            if key in failed:
                continue
            with progress.Step(f"round {n_rounds + 1}: {engine}, {shape}, {name}"):
                found = each.peers.attempt(f"{engine}, {shape}, {name}", work)
            if found is None:
                failed.add(key)
            else:
                seen.setdefault(key, []).append(found)
        n_rounds, took = n_rounds + 1, time.monotonic() - begun
    print(f"{n_rounds} rounds of {took:.0f} s")
    return {key: {**found[-1], **medians(found), "rounds": len(found)} for key, found in seen.items()}


def medians(found: list[dict]) -> dict:
    numbers = [name for name, value in found[0].items() if isinstance(value, (int, float))]
    return {name: statistics.median(row[name] for row in found) for name in numbers}


def machine_kind() -> str:
    """Which targets apply, by the instructions of the processor."""
    flags = Path("/proc/cpuinfo").read_text()
    if "amx_bf16" in flags:
        return "AMX"
    if "avx512_bf16" in flags:
        return "AVX-512-BF16"
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "other"


def build_ours(arguments: argparse.Namespace) -> Path:
    if arguments.binary:
        return arguments.binary.resolve()
    release = ["--release"] if arguments.profile == "release" else []
    command = ["cargo", "build", "--locked", "--workspace", "--bin", "slipway-runtime", *release]
    progress.run(f"Build slipway-runtime, profile {arguments.profile}", command, progress.last_word_of_cargo)
    target = Path(os.environ.get("CARGO_TARGET_DIR", progress.ROOT / "target"))
    return target / ("release" if release else "debug") / "slipway-runtime"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=13, help="time for all measurements; one round is always made")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--profile", choices=["dev", "release"], default=os.environ.get("PROFILE") or "dev")
    parser.add_argument("--binary", type=Path, help="measure this slipway-runtime and build none")
    parser.add_argument("--install", action="store_true", help="install the peers, and measure nothing")
    arguments = parser.parse_args()
    peers = Peers(arguments.threads)
    peers.install()
    if arguments.install:
        return
    binary = build_ours(arguments)
    begun = time.monotonic()
    deadline = begun + 60 * arguments.minutes
    quantizes = "--quantization" in run([binary, "bench", "--help"])
    if not quantizes:
        peers.notes.append("slipway Q8_0 and Q4_0: this version has no QUANTIZATION")
    kind = machine_kind()
    # torch computes bf16 without such instructions far slower than f32.
    dtype = "bfloat16" if kind in ("AMX", "AVX-512-BF16") else "float32"
    served = {}
    for name in ("bf16", "Q8_0"):
        servers = [("llama.cpp", streams.llama_server(LLAMA, gguf(SERVED_SHAPE, name), arguments.threads))]
        if name == "bf16" or quantizes:
            servers.insert(0, ("slipway", streams.slipway(binary, PEERS / SERVED_SHAPE, FORMATS[name], arguments.threads)))
        for engine, command in servers:
            with progress.Step(f"8 streams over HTTP: {engine}, {SERVED_SHAPE}, {name}"):
                found = peers.attempt(f"streams, {engine}, {name}", lambda command=command: streams.measure(command))
            if found:
                served[(engine, SERVED_SHAPE, name)] = found
    steps = rounds(Round(peers, binary, seconds=12), deadline, quantizes, dtype)
    results = {
        "date": datetime.date.today().isoformat(),
        "kind": kind,
        "threads": arguments.threads,
        "profile": "given binary" if arguments.binary else arguments.profile,
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE).stdout.strip(),
        "llama.cpp": LLAMA_SOURCES,
        "torch": TORCH,
        "minutes": (time.monotonic() - begun) / 60,
        "steps": [dict(zip(("engine", "shape", "format"), key, strict=True)) | value for key, value in steps.items()],
        "served": [dict(zip(("engine", "shape", "format"), key, strict=True)) | value for key, value in served.items()],
        "notes": peers.notes,
    }
    write(results)


def write(results: dict) -> None:
    ours = next((row for row in results["steps"] if row["engine"] == "slipway"), {})
    processor = ours.get("machine", {}).get("processor", results["kind"])
    name = re.sub(r"[^a-z0-9]+", "-", f"{results['date']}-{processor}-{results['kind']}".lower()).strip("-")
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = markdown(results)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(text)
    print(f"\n{text}\n{RESULTS / name}.md and .json")


if __name__ == "__main__":
    main()
