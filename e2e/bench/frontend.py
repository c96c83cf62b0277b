"""`make bench-frontend`: what the server does without a model, beside FastAPI and uvicorn in the same run.

All answer the same requests with the same events; rounds alternate, so that what else the machine does hits all. The
first server is ours with every answer at once, as FastAPI has it here: what is compared is what stands around an
engine. Ours also reads the request's table, writes the template and makes tokens of it, which the peer does not. The
second is ours with scheduler and sampler.
Streams have 128 tokens; whole answers have one, for what is compared there is the cost of a request. Responses per
second say what a client gets; processor time per event says what a token costs, and is the steadier of the two where
others use the machine. Then ours alone: many streams at a reading pace, each of which begins at another time, whose
first bytes and gaps tell whether any of them stalls. Only ratios within one run mean anything.
"""

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import progress  # noqa: E402

HERE = Path(__file__).resolve().parent
VENV = progress.ROOT / ".cache" / "venv-bench"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", progress.ROOT / "target")) / "release" / "examples"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
N_TOKENS = 128
N_CLIENTS = 32
PROMPT = "Tell me a story about a tiny language model that runs on a laptop and wants to see the sea."


@dataclass
class Server:
    """A server that is measured, and every process it consists of."""

    name: str
    process: subprocess.Popen[bytes]
    port: int

    def processor_s(self) -> float:
        """Processor time so far, of the process and its children."""
        pids = [self.process.pid, *children(self.process.pid)]
        return sum(ticks(pid) for pid in pids) / TICKS_PER_S

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end before it is read.
        with contextlib.suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    return found


def ticks(pid: int) -> int:
    """User and system time of a process; the name before them may hold blanks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def start(name: str, command: list[str], port: int) -> Server:
    log = progress.LOGS / f"bench-{name.strip(' +')}.log"
    progress.LOGS.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=HERE)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{name} ended:\n{log.read_text()}")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5)
            return Server(name, process, port)
        except urllib.error.HTTPError:
            return Server(name, process, port)
        except OSError:
            time.sleep(0.1)
    sys.exit(f"{name} does not answer:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ours(step_ms: int = 0, *, is_scheduled: bool = False) -> Server:
    port = free_port()
    name, words = ("  + scheduler", ["scheduler"]) if is_scheduled else ("slipway", [])
    return start(name, [str(TARGET / "echo_server"), str(port), str(step_ms), *words], port)


def peer(n_workers: int) -> Server:
    port = free_port()
    quiet = ["--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
    command = [str(VENV / "bin" / "uvicorn"), "peer:app", "--port", str(port), "--workers", str(n_workers), *quiet]
    return start(f"fastapi-{n_workers}", command, port)


def load(server: Server, n_clients: int, seconds: float, *, stream: bool, ramp_s: float = 0) -> dict[str, float]:
    """One round; adds the processor time that the server spent on each event and each response."""
    message = {"role": "user", "content": PROMPT}
    body = {
        "model": "echo",
        "messages": [message],
        "temperature": 0,
        "max_tokens": N_TOKENS if stream else 1,
        "ignore_eos": True,
        "stream": stream,
    }
    command = [str(TARGET / "sse_load"), str(server.port), str(n_clients), str(seconds), json.dumps(body), str(ramp_s)]
    before = server.processor_s()
    done = subprocess.run(command, capture_output=True, text=True)
    spent = server.processor_s() - before
    if done.returncode != 0:
        sys.exit(f"the load generator failed at {server.name}: {done.stderr}")
    seen = json.loads(done.stdout)
    seen["processor_us_per_event"] = 1e6 * spent / max(seen["events"], 1)
    seen["processor_us_per_response"] = 1e6 * spent / seen["responses"]
    return seen


def compare(servers: list[Server], rounds: int, seconds: float, stream: bool) -> None:
    """Alternating rounds; prints medians and the ratio to the first server."""
    seen: dict[str, list[dict[str, float]]] = {server.name: [] for server in servers}
    for server in servers:
        load(server, N_CLIENTS, 0.5, stream=stream)
    for _ in range(rounds):
        for server in servers:
            seen[server.name].append(load(server, N_CLIENTS, seconds, stream=stream))
    kind = f"streamed, {N_TOKENS} tokens" if stream else "whole, 1 token"
    print(f"\n{kind}; {N_CLIENTS} clients, median of {rounds} rounds of {seconds:g} s")
    per = "event" if stream else "response"
    print(f"{'':14}{'responses/s':>14}{'ratio':>8}{f'processor µs/{per}':>24}{'ratio':>8}")
    medians = {name: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for name, runs in seen.items()}
    first = medians[servers[0].name]
    for name, row in medians.items():
        rate, cost = row["responses_per_s"], row[f"processor_us_per_{per}"]
        ratios = first["responses_per_s"] / rate, cost / first[f"processor_us_per_{per}"]
        print(f"{name:14}{rate:>14.0f}{ratios[0]:>8.1f}{cost:>24.2f}{ratios[1]:>8.1f}")


def paced(counts: list[int], step_ms: int, *, is_scheduled: bool) -> None:
    """Streams whose tokens come at a pace; one step of the engine gives each of them one. They begin one after the
    other, over the time that one of them takes, and begin anew for as long again."""
    stream_s = N_TOKENS * step_ms / 1e3
    engine = ", scheduler and sampler too" if is_scheduled else ""
    print(f"\npaced, a token every {step_ms} ms, {N_TOKENS} tokens; ours alone{engine}")
    print(f"{'streams':>8}{'events/s':>12}{'first byte ms p50':>20}{'p99':>8}{'longest gap ms p50':>22}{'p99':>8}{'max':>8}{'processor':>12}")
    for n_clients in counts:
        server = ours(step_ms, is_scheduled=is_scheduled)
        try:
            before, since = server.processor_s(), time.monotonic()
            seen = load(server, n_clients, stream_s, stream=True, ramp_s=stream_s)
            cores = (server.processor_s() - before) / (time.monotonic() - since)
        finally:
            server.stop()
        print(
            f"{n_clients:>8}{seen['events_per_s']:>12.0f}{seen['first_byte_ms_p50']:>20.0f}{seen['first_byte_ms_p99']:>8.0f}"
            f"{seen['longest_gap_ms_p50']:>22.0f}{seen['longest_gap_ms_p99']:>8.0f}{seen['longest_gap_ms']:>8.0f}{cores:>10.2f} ×"
        )


def prepare() -> None:
    build = ["cargo", "build", "--locked", "--release", "-p", "runtime", "--example", "echo_server", "--example", "sse_load"]
    progress.run("Build the echo server", build, progress.last_word_of_cargo)
    if not (VENV / "bin" / "uvicorn").exists():
        progress.run("Make a Python environment", [sys.executable, "-m", "venv", str(VENV)])
        requirements = str(HERE / "requirements.txt")
        progress.run("Install FastAPI and uvicorn", [str(VENV / "bin" / "pip"), "install", "--quiet", "-r", requirements])


def stolen() -> float:
    """Processor time that this machine's host gave to others, so far."""
    return int(Path("/proc/stat").read_text().split()[8]) / TICKS_PER_S


def machine() -> None:
    model = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    average = " ".join(f"{number:.2f}" for number in os.getloadavg())
    print(f"{len(model)} × {model[0] if model else 'unknown'}, load average {average}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--streams", type=int, nargs="+", default=[64, 512, 2048])
    parser.add_argument("--step-ms", type=int, default=100)
    arguments = parser.parse_args()
    prepare()
    machine()
    before = stolen()
    servers = [ours(), ours(is_scheduled=True), peer(1), peer(os.cpu_count() or 1)]
    try:
        for stream in (True, False):
            compare(servers, arguments.rounds, arguments.seconds, stream)
    finally:
        for server in servers:
            server.stop()
    paced(arguments.streams, arguments.step_ms, is_scheduled=False)
    paced([max(arguments.streams)], arguments.step_ms, is_scheduled=True)
    print(f"\nof the processors, others took {stolen() - before:.0f} s")
    machine()


if __name__ == "__main__":
    main()
