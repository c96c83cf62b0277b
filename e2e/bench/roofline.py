#!/usr/bin/env python3
"""The least time that a step can take on cards, from the costs that `slipway-runtime inspect` counts: writes docs/roofline.md.

An op takes at least as long as its bytes need at the card's memory bandwidth and its operations at the card's rate of
bf16. No card was used: these are estimates to compare measurements with.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "e2e" / "gpu"))
from run import CONFIGS  # noqa: E402

RUNTIME = ROOT / "target" / "debug" / "slipway-runtime"
# Bytes per second and bf16 operations per second of the data sheets (dense), and bytes of memory.
CARDS = {"H200": (4.8e12, 989e12, 141e9), "H100 SXM": (3.35e12, 989e12, 80e9), "A100 80 GB": (2.039e12, 312e12, 80e9)}
# What good kernels reach of them.
OF_BANDWIDTH, OF_RATE = 0.9, 0.8
OF_MEMORY = 0.9
MODELS = {
    "Llama-3.2-1B": CONFIGS["llama-1b"],
    "Llama-3.1-8B": CONFIGS["llama-8b"],
    "Qwen3-30B-A3B": {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16",
        "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
        "num_experts_per_tok": 8, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "vocab_size": 151936, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "tie_word_embeddings": False, "hidden_act": "silu", "bos_token_id": 151643, "eos_token_id": 151645,
        "attention_bias": False,
    },
}  # fmt: skip
DECODE = [(n, context) for n in (1, 8, 32, 128, 256) for context in (1024, 8192)]
PROMPT = 2048
HEAD = """# Roofline

**Estimates; nothing here was measured.** The least time of a step on three cards, from the bytes and operations of each op
(`slipway-runtime inspect --sequences N --context TOKENS --prompt TOKENS --json`). Weights and KV cache have 16 bits, activations
32. An op takes the longer of its bytes at {bandwidth:.0%} of the data sheet's bandwidth and its operations at {rate:.0%} of its dense
bf16 rate; ops run one after the other. Launches, sampling and the host cost nothing here. A dash: the weights and the cache
do not fit into {memory:.0%} of one card's memory. `e2e/bench/roofline.py` writes this page.
"""


def main():
    cards = list(CARDS)
    lines = [HEAD.format(bandwidth=OF_BANDWIDTH, rate=OF_RATE, memory=OF_MEMORY)]
    for name, config in MODELS.items():
        lines.append(f"\n## {name}\n\n| step | {' | '.join(cards)} |\n|---{'|--:' * len(cards)}|\n")
        for n_sequences, context in DECODE:
            facts = inspect(config, n_sequences, context)
            cells = [cell(facts, card, n_sequences * context, n_sequences) for card in cards]
            lines.append(f"| decode {n_sequences} × {context} tokens | {' | '.join(cells)} |\n")
        facts = inspect(config, 1, PROMPT)
        times = [seconds(facts["prefill"], card) for card in cards]
        lines.append(f"| prompt of {PROMPT} tokens | {' | '.join(f'{time * 1e3:.1f} ms' for time in times)} |\n")
    (ROOT / "docs" / "roofline.md").write_text("".join(lines))


def inspect(config, n_sequences, context):
    """What a model needs and costs."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        sizes = ["--sequences", str(n_sequences), "--context", str(context), "--prompt", str(PROMPT)]
        ran = subprocess.run([RUNTIME, "inspect", folder, "--json", *sizes], capture_output=True, text=True, check=False)
    report = json.loads(ran.stdout)
    if report["model"] is None:
        sys.exit(f"roofline: {report['refused']}")
    return report["model"]


def cell(facts, card, n_tokens, n_sequences):
    """The time of a decode step and its tokens per second, if it fits."""
    kv_bytes = facts["kv_bytes_per_token"] * n_tokens
    if facts["weights_bytes"] + kv_bytes > OF_MEMORY * CARDS[card][2]:
        return "–"
    time = seconds(facts["decode"], card)
    return f"{time * 1e3:.2f} ms, {n_sequences / time:,.0f} tok/s"


def seconds(step, card):
    bandwidth, rate, _ = CARDS[card]
    of_bytes = [op["weight_bytes"] + op["kv_bytes"] + op["activation_bytes"] for op in step["ops"]]
    of_flops = [op["flops"] for op in step["ops"]]
    return sum(
        max(n_bytes / (OF_BANDWIDTH * bandwidth), flops / (OF_RATE * rate))
        for n_bytes, flops in zip(of_bytes, of_flops, strict=True)
    )


if __name__ == "__main__":
    main()
