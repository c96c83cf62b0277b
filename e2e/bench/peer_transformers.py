"""transformers on torch, for `make bench-peers`: `peer_transformers.py FOLDER THREADS DTYPE` prints one line of JSON.

Prefill is one call with 512 tokens, of which the last one's logits are requested; decoding is one call per token with the
cache of a prompt of 64 tokens. Medians after one call that warms up.
"""

import json
import os
import statistics
import sys
import time

# Functions of GPUs are found when they are called, which is never: see torch_without_gpu.py.
sys.setdlopenflags(os.RTLD_LAZY)
import torch  # noqa: E402
import transformers  # noqa: E402

N_PROMPT = 512
N_CONTEXT = 64
N_DECODED = 16


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main():
    folder, n_threads, dtype = sys.argv[1], int(sys.argv[2]), getattr(torch, sys.argv[3])
    torch.set_num_threads(n_threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    generator = torch.Generator().manual_seed(0)

    def tokens(*shape):
        return torch.randint(300, model.config.vocab_size, shape, generator=generator)

    def decode(n_sequences):
        cache = model(tokens(n_sequences, N_CONTEXT), use_cache=True, logits_to_keep=1).past_key_values
        steps = [
            seconds(lambda: model(tokens(n_sequences, 1), past_key_values=cache, use_cache=True))
            for _ in range(N_DECODED)
        ]
        return n_sequences / statistics.median(steps[1:])

    with torch.inference_mode():
        prompts = [seconds(lambda: model(tokens(1, N_PROMPT), use_cache=True, logits_to_keep=1)) for _ in range(3)]
        found = {"prefill_512": N_PROMPT / min(prompts[1:]), "decode_1": decode(1), "decode_16": decode(16)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
