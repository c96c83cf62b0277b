"""Checkpoints of known shapes with random weights: a folder for Slipway and transformers, a GGUF file for llama.cpp.

Both hold the same numbers. (The rows of queries and keys are not reordered as llama.cpp expects them of real models: that
changes what is computed, and not how fast.) `python shapes.py NAME FOLDER` makes them.
"""

import json
import sys
from pathlib import Path

SHAPES = {
    "tinyllama-1.1b": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 2048,
        "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4,
        "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    },
    "qwen2.5-0.5b": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16", "hidden_size": 896,
        "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
        "tie_word_embeddings": True, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2,
    },
}  # fmt: skip
# GGUF's name of each matrix of a layer, and its rows and columns by the names of sizes.
LAYER = {
    "self_attn.q_proj": ("attn_q", "q", "hidden"),
    "self_attn.k_proj": ("attn_k", "kv", "hidden"),
    "self_attn.v_proj": ("attn_v", "kv", "hidden"),
    "self_attn.o_proj": ("attn_output", "hidden", "q"),
    "mlp.gate_proj": ("ffn_gate", "mlp", "hidden"),
    "mlp.up_proj": ("ffn_up", "mlp", "hidden"),
    "mlp.down_proj": ("ffn_down", "hidden", "mlp"),
}


def tensors(config):
    """Name in safetensors, name in GGUF, and shape of each tensor, in the order of the files."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = hidden // heads
    sizes = {"hidden": hidden, "mlp": config["intermediate_size"], "q": heads * head, "kv": config["num_key_value_heads"] * head}
    yield "model.embed_tokens.weight", "token_embd.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        of, short = f"model.layers.{layer}", f"blk.{layer}"
        yield f"{of}.input_layernorm.weight", f"{short}.attn_norm.weight", (hidden,)
        yield f"{of}.post_attention_layernorm.weight", f"{short}.ffn_norm.weight", (hidden,)
        for name, (gguf, rows, columns) in LAYER.items():
            yield f"{of}.{name}.weight", f"{short}.{gguf}.weight", (sizes[rows], sizes[columns])
            if config["model_type"] == "qwen2" and gguf in ("attn_q", "attn_k", "attn_v"):
                yield f"{of}.{name}.bias", f"{short}.{gguf}.bias", (sizes[rows],)
    yield "model.norm.weight", "output_norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", "output.weight", (config["vocab_size"], hidden)


def numbers(name, shape, generator):
    """The numbers of a tensor, as bf16 in 16 bits: those of a matrix keep the size of what they are multiplied with."""
    import numpy as np

    if len(shape) == 1:
        values = np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32)
    else:
        values = generator.standard_normal(shape, dtype=np.float32) * np.float32(shape[1] ** -0.5)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def words(n_tokens):
    """A vocabulary: the bytes under the names that byte-level BPE gives them, and as many other words as are needed."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(others)}
    found = ["<unk>", "<s>", "</s>", *(letters[byte] for byte in range(256))]
    return found + [f"Ġ{number}" for number in range(n_tokens - len(found))]


def tokenizer(config):
    """The vocabulary as tokenizer.json."""
    special = [
        {"id": at, "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        for at, word in enumerate(words(3 + 256)[:3])
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocabulary = {word: at for at, word in enumerate(words(config["vocab_size"]))}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocabulary, "merges": [],
    }  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
        "pre_tokenizer": level, "post_processor": None, "decoder": level, "model": model,
    }  # fmt: skip


def make(name, folder):
    """Writes the folder `NAME` and the file `NAME-bf16.gguf`; what is complete is kept."""
    import numpy as np

    config = SHAPES[name]
    checkpoint, gguf = folder / name, folder / f"{name}-bf16.gguf"
    if (checkpoint / "config.json").exists() and gguf.exists():
        return
    checkpoint.mkdir(parents=True, exist_ok=True)
    listed = list(tensors(config))
    header, at = {}, 0
    for of, _, shape in listed:
        end = at + 2 * int(np.prod(shape))
        header[of] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    writer = gguf_writer(config, gguf.with_suffix(".partial"))
    generator = np.random.default_rng(0)
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for at, (of, short, shape) in enumerate(listed):
            print(f"{name}: tensor {at + 1} of {len(listed)}", flush=True)
            values = numbers(of, shape, generator)
            file.write(values.tobytes())
            add(writer, short, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    gguf.with_suffix(".partial").rename(gguf)
    (checkpoint / "tokenizer.json").write_text(json.dumps(tokenizer(config)))
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(tokens))
    # Last, because it says that the rest is there.
    (checkpoint / "config.json").write_text(json.dumps(config))


def add(writer, name, values):
    """A tensor of the GGUF file: matrices in bf16, vectors in f32 as llama.cpp has them."""
    import gguf
    import numpy as np

    if values.ndim == 1:
        writer.add_tensor(name, (values.astype(np.uint32) << 16).view(np.float32))
    else:
        writer.add_tensor(name, values.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)


def gguf_writer(config, path):
    import gguf

    writer = gguf.GGUFWriter(path, config["model_type"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = words(config["vocab_size"])
    kinds = [gguf.TokenType.CONTROL if at < 3 else gguf.TokenType.NORMAL for at in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["Ġ 0"])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    return writer


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
