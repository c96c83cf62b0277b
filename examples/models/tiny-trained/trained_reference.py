"""reference.json + heldout.txt (perplexity) for the trained tiny Llama.  trained_reference.py DIR"""
import sys, os, json, math, warnings; warnings.filterwarnings("ignore"); os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
import torch; torch.set_num_threads(1)
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
d = sys.argv[1]; m = AutoModelForCausalLM.from_pretrained(d, dtype=torch.float32, attn_implementation="eager").eval(); t = PreTrainedTokenizerFast.from_pretrained(d); b = AutoModelForCausalLM.from_pretrained(d, dtype=torch.bfloat16, attn_implementation="eager").eval()
ch = lambda *q: t.apply_chat_template([{"role": r, "content": c} for r, c in q], tokenize=False, add_generation_prompt=True)
P = [ch(("user", q)) for q in ("What is 7 plus 5?", "Count from 4 to 9.", "What is the capital of Japan?", "Give me JSON for a person named Ruth, age 34, living in Cairo.", "Repeat after me: lion river gold", "What is the weather in Oslo?", "Hello!")] + [ch(("user", "Hello!"), ("assistant", "Hello! How can I help you today?"), ("user", "What day comes after Friday?")), "And the LORD spake unto Moses, saying,", "In the beginning God created"]
out = []
for p in P:
    ids = t(p, add_special_tokens=False).input_ids; full = list(ids); gen = []
    for _ in range(48):
        with torch.no_grad(): z = m(torch.tensor([full]), use_cache=False).logits[0, -1]
        k = z.topk(2); gen.append((k[1][0].item(), (k[0][0] - k[0][1]).item())); full.append(gen[-1][0])
        if gen[-1][0] in m.config.eos_token_id: break
    with torch.no_grad(): lg = m(torch.tensor([ids]), use_cache=False).logits[0]; i = torch.tensor([ids]); g = b.generate(i, attention_mask=torch.ones_like(i), max_new_tokens=len(gen), do_sample=False, pad_token_id=0)[0][len(ids):].tolist()
    lp = lg.log_softmax(-1); tp = lg[-1].topk(20); same = sum(1 for x, y in zip(g, gen) if x == y[0])
    out.append(dict(prompt=p, ids=ids, prompt_logprobs=[None] + [round(lp[k, ids[k + 1]].item(), 5) for k in range(len(ids) - 1)], last_logits_top20=[[x, round(v, 5)] for x, v in zip(tp[1].tolist(), tp[0].tolist())], greedy=[x[0] for x in gen], greedy_margins=[round(x[1], 5) for x in gen], greedy_text=t.decode([x[0] for x in gen]), bf16_matching_tokens=same))
    print(f"{out[-1]['greedy_text']!r:90.90} min margin {min(x[1] for x in gen):.3f}  bf16 {same}/{len(gen)}")
held = "\n\n".join(json.load(open("./corpus/lm.json"))["kjv"][:6]); open(d + "/heldout.txt", "w").write(held); ids = t(held, add_special_tokens=False).input_ids
def ppl(model):
    s = n = 0
    with torch.no_grad():
        for i in range(0, len(ids) - 1, 256):
            x = torch.tensor([ids[i:i + 257]]); z = model(x[:, :-1]).logits.float(); s += torch.nn.functional.cross_entropy(z[0], x[0, 1:], reduction="sum").item(); n += x.shape[1] - 1
    return math.exp(s / n)
pf, pb = ppl(m), ppl(b); print("heldout ppl fp32", pf, "bf16", pb, "tokens", len(ids))
json.dump(dict(oracle="transformers fp32 eager no-cache", heldout_ppl_fp32_windows_of_256=pf, heldout_ppl_bf16=pb, prompts=out), open(d + "/reference.json", "w"), ensure_ascii=False)
