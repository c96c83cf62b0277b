"""The results of `make bench-peers` as Markdown: rates, ratios, and which targets they reach."""

STEPS = {"prefill_512": "prefill 512", "decode_1": "decode", "decode_16": "decode, batch 16"}
# What a ratio must reach: what, format of ours, peer, its format, and the least ratio on each kind of machine.
TARGETS = [
    ("prefill_512", "bf16", "transformers", None, {"AMX": 1.5, "AVX-512-BF16": 1.0}),
    ("prefill_512", "bf16", "llama.cpp", "bf16", {"AMX": 8, "AVX-512-BF16": 1.5}),
    ("prefill_512", "Q8_0", "llama.cpp", "Q8_0", {"AMX": 3, "AVX-512-BF16": 3}),
    ("decode_1", "bf16", "llama.cpp", "bf16", {"AMX": 1.7, "AVX-512-BF16": 1.0}),
    ("decode_1", "Q8_0", "llama.cpp", "Q8_0", {"AMX": 1.3, "AVX-512-BF16": 1.3}),
    ("decode_1", "Q4_0", "llama.cpp", "Q4_0", {"AMX": 1.3, "AVX-512-BF16": 1.3}),
    ("decode_16", "bf16", "llama.cpp", "bf16", {"AMX": 3, "AVX-512-BF16": 1.5}),
]
# Least shares of the probe's read bandwidth of decoding one sequence.
SHARES = {"bf16": 0.90, "Q8_0": 0.85, "Q4_0": 0.85}
STREAMS_RATIO, FIRST_TOKEN_RATIO, BATCH_RATIO = 4, 10, 8
OURS = "slipway"


def markdown(results: dict) -> str:
    lines = [
        f"# Slipway and its peers, {results['date']}",
        "",
        f"{results['threads']} threads, {results['kind']}; slipway-runtime of commit {results['commit']}, profile {results['profile']}; "
        f"llama.cpp of {results['llama.cpp']}, {results['torch']}. Medians of interleaved rounds; random weights. `make bench-peers`.",
        "",
        *probe(results),
        *steps(results),
        *served(results),
        *targets(results),
    ]
    if results["notes"]:
        lines += ["", "## Not measured", "", *(f"- {note}" for note in results["notes"])]
    return "\n".join(lines) + "\n"


def probe(results: dict) -> list[str]:
    ours = [row for row in results["steps"] if row["engine"] == OURS]
    if not ours:
        return []
    found = [limits for row in ours for when in ("start", "end") for limits in row["probe"][when]]
    lines = ["| threads | read, GB/s | f32 FMA, GFLOP/s |", "|--:|--:|--:|"]
    for n_threads in sorted({limits["threads"] for limits in found}):
        same = [limits for limits in found if limits["threads"] == n_threads]
        reads = sorted(max(limits["read_one_stream_gb_s"], limits["read_streams_gb_s"]) for limits in same)
        rates = sorted(limits["fma_f32_gflop_s"] for limits in same)
        lines.append(f"| {n_threads} | {reads[0]:.1f} – {reads[-1]:.1f} | {rates[0]:.0f} – {rates[-1]:.0f} |")
    return [f"{ours[0]['machine']['processor']}; the probe of the machine, lowest and highest of all runs:", "", *lines, ""]


def steps(results: dict) -> list[str]:
    lines = ["## Steps, tokens per second", "", f"| shape | format | engine | {' | '.join(STEPS.values())} | ours ÷ peer |", f"|---|---|---|{'--:|' * len(STEPS)}---|"]
    for row in results["steps"]:
        rates = " | ".join(f"{row[name]:.1f}" for name in STEPS)
        ratios = ""
        if row["engine"] != OURS:
            format = row["format"] if row["engine"] == "llama.cpp" else "bf16"
            own = find(results["steps"], OURS, row["shape"], format)
            ratios = ", ".join(f"{own[name] / row[name]:.2f}" for name in STEPS) if own else "–"
        lines.append(f"| {row['shape']} | {row['format']} | {row['engine']} | {rates} | {ratios} |")
    return lines


def served(results: dict) -> list[str]:
    lines = ["", "## 8 streams over HTTP, prompts of 200 tokens, answers of 128", ""]
    lines += ["| format | server | tokens/s | first token ms, p50 / max | between events ms, p50 / p99 / max |", "|---|---|--:|--:|--:|"]
    for row in results["served"]:
        first = f"{row['first_token_ms_p50']:.0f} / {row['first_token_ms_max']:.0f}"
        gaps = f"{row['gap_ms_p50']:.0f} / {row['gap_ms_p99']:.0f} / {row['gap_ms_max']:.0f}"
        lines.append(f"| {row['format']} | {row['engine']} | {row['tokens_per_s']:.1f} | {first} | {gaps} |")
    return lines


def targets(results: dict) -> list[str]:
    """Each target, what was reached, and whether it holds; those of other machines say which ones they are for."""
    lines = ["", "## Targets", "", "| target | shape | reached | holds |", "|---|---|--:|---|"]

    def add(target: str, shape: str, reached: float | None, least: float | None) -> None:
        holds = "no target for this kind of machine" if least is None else "–" if reached is None else "yes" if reached >= least else "no"
        lines.append(f"| {target} | {shape} | {'–' if reached is None else f'{reached:.2f}'} | {holds} |")

    shapes = dict.fromkeys(row["shape"] for row in results["steps"])
    for shape in shapes:
        for what, format, engine, other, by_kind in TARGETS:
            own = find(results["steps"], OURS, shape, format)
            peer = find(results["steps"], engine, shape, other)
            least = by_kind.get(results["kind"])
            wanted = f" ≥ {least} ×" if least else ""
            add(f"{STEPS[what]}, {format}:{wanted} {engine} {other or ''}".strip(), shape, own[what] / peer[what] if own and peer else None, least)
        for format, least in SHARES.items():
            own = find(results["steps"], OURS, shape, format)
            add(f"decode, {format}: ≥ {least:.0%} of the read bandwidth", shape, own["decode_1_gb_s"] / read(own) if own else None, least)
        own = find(results["steps"], OURS, shape, "bf16")
        add(f"decode, bf16: batch 16 ≥ {BATCH_RATIO} × batch 1", shape, own["decode_16"] / own["decode_1"] if own else None, BATCH_RATIO)
    for shape, format in dict.fromkeys((row["shape"], row["format"]) for row in results["served"]):
        own, peer = (find(results["served"], engine, shape, format) for engine in (OURS, "llama.cpp"))
        both = own and peer
        add(f"8 streams, {format}: tokens/s ≥ {STREAMS_RATIO} × llama-server", shape, own["tokens_per_s"] / peer["tokens_per_s"] if both else None, STREAMS_RATIO)
        sooner = peer["first_token_ms_p50"] / own["first_token_ms_p50"] if both else None
        add(f"8 streams, {format}: first token p50 ≥ {FIRST_TOKEN_RATIO} × sooner", shape, sooner, FIRST_TOKEN_RATIO)
    return lines


def read(row: dict) -> float:
    """The best read bandwidth of the probes around a measurement."""
    ends = [row["probe"][when][-1] for when in ("start", "end")]
    return max(limits[name] for limits in ends for name in ("read_one_stream_gb_s", "read_streams_gb_s"))


def find(rows: list[dict], engine: str, shape: str, format: str | None) -> dict | None:
    return next((row for row in rows if row["engine"] == engine and row["shape"] == shape and format in (None, row["format"])), None)
