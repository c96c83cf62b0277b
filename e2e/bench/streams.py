"""Streams over HTTP against a server with OpenAI's completions: 8 at once, prompts of 200 tokens, answers of 128."""

import contextlib
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import progress  # noqa: E402

N_STREAMS, N_PROMPT, N_OUTPUT = 8, 200, 128
START_S = 120
STREAMS_S = 300


def slipway(binary: Path, folder: Path, quantization: str | None, n_threads: int) -> list[str]:
    more = ["--quantization", quantization] if quantization else []
    command = [binary, "serve", folder, "--host", "127.0.0.1", "--served-model-name", "m", "--device", "cpu", *more]
    return ["taskset", "-c", cores(n_threads), *map(str, command)]


def llama_server(folder: Path, file: Path, n_threads: int) -> list[str]:
    context = N_STREAMS * (N_PROMPT + N_OUTPUT + 64)
    command = [folder / "llama-server", "-m", file, "--host", "127.0.0.1", "-c", context, "-np", N_STREAMS, "-t", n_threads]
    return ["taskset", "-c", cores(n_threads), *map(str, command), "--no-webui", "--no-warmup"]


def cores(n_threads: int) -> str:
    return f"0-{n_threads - 1}"


def measure(command: list[str]) -> dict:
    """Tokens per second of all answers, and milliseconds to the first token and between the events of a stream."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    progress.LOGS.mkdir(parents=True, exist_ok=True)
    with (progress.LOGS / "bench-streams.log").open("w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=subprocess.STDOUT)
        try:
            wait(port, process)
            one(port, 0, 4, 2)
            return serve(port)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
            if process.poll() is None:
                process.kill()


def wait(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ValueError(f"the server ended with {process.returncode}; .cache/logs/bench-streams.log says why")
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/v1/models")
            if connection.getresponse().status == 200 and is_ready(port):
                return
        time.sleep(0.2)
    raise ValueError(f"the server was not ready after {START_S} s")


def is_ready(port: int) -> bool:
    """Both servers answer 503 to a completion while they load."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/v1/completions", body(0, 2, 1), {"content-type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status == 200


def body(seed: int, n_prompt: int, n_output: int) -> str:
    generator = random.Random(seed)
    prompt = [generator.randrange(300, 30000) for _ in range(n_prompt)]
    return json.dumps(
        {"model": "m", "prompt": prompt, "max_tokens": n_output, "temperature": 0, "ignore_eos": True, "stream": True}
    )


def one(port: int, seed: int, n_prompt: int, n_output: int) -> list[float]:
    """The times of the events of a stream."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=STREAMS_S)
    connection.request("POST", "/v1/completions", body(seed, n_prompt, n_output), {"content-type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        raise ValueError(f"the server answers {response.status}: {response.read()[:200]!r}")
    times = []
    for line in response:
        if line.startswith(b"data: ") and b'"text"' in line:
            times.append(time.monotonic())
    if not times:
        raise ValueError("the server sent no token")
    return times


def serve(port: int) -> dict:
    found: list[list[float]] = []
    failed: list[Exception] = []

    def stream(seed: int) -> None:
        try:
            found.append(one(port, seed, N_PROMPT, N_OUTPUT))
        except (OSError, ValueError, http.client.HTTPException) as error:
            failed.append(error)

    threads = [threading.Thread(target=stream, args=(seed,)) for seed in range(1, N_STREAMS + 1)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise ValueError(f"a stream failed: {failed[0]}")
    ended = max(times[-1] for times in found)
    firsts = sorted(1e3 * (times[0] - begun) for times in found)
    gaps = sorted(1e3 * (b - a) for times in found for a, b in zip(times, times[1:], strict=False))
    return {
        "tokens_per_s": N_STREAMS * N_OUTPUT / (ended - begun),
        "first_token_ms_p50": statistics.median(firsts),
        "first_token_ms_max": firsts[-1],
        "gap_ms_p50": statistics.median(gaps),
        "gap_ms_p99": gaps[int(0.99 * (len(gaps) - 1))],
        "gap_ms_max": gaps[-1],
        "events": sum(map(len, found)),
    }
