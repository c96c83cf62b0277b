// The sampler: rows of logits become tokens, as the CPU's sampler defines them.
#include "logprobs.cuh"
#include "race.cuh"
#include "select.cuh"
#include "shape.cuh"

namespace {

// The last candidate of those with a logit of at least `lowest` that top_k, then top_p keep.
__device__ __forceinline__ Candidate last_kept(Bins& bins, const float* row, int n, const Scale& scale, double lowest,
                                               const Draw& draw) {
  Candidate last = ~(Candidate)0;
  if (draw.top_k != NONE && draw.top_k < count_candidates(row, n, lowest)) {
    last = select(bins, row, n, scale, lowest, last, Goal{draw.top_k, false, 0});
  }
  if (draw.top_p < 1.0f) last = select(bins, row, n, scale, lowest, last, Goal{0, true, (double)draw.top_p});
  return last;
}

__device__ __forceinline__ void fail(Drawn& to, unsigned* drawn, Status status, unsigned token, float logit) {
  if (threadIdx.x > 0) return;
  to.status = status;
  to.token = token;
  to.bad_logit = logit;
  *drawn = 0;
}

__device__ __forceinline__ void sample_row(Bins& bins, const Draw& draw, const unsigned* lists, const float* logits,
                                           unsigned* seen, float* shaped, int n, unsigned* drawn, Drawn& to) {
  Best raw = best_of(logits, n);
  if (raw.is_bad()) return fail(to, drawn, BAD_LOGIT, raw.first_bad, logits[raw.first_bad]);
  const float* row = logits;
  Best best = raw;
  if (draw.shaped_row != NONE) {
    shape(draw, lists, logits, seen, shaped, n);
    row = shaped;
    best = best_of(shaped, n);
    if (best.is_bad()) return fail(to, drawn, BAD_LOGIT, best.first_bad, shaped[best.first_bad]);
  }
  if (best.has_none()) return fail(to, drawn, NO_CANDIDATE, 0, 0.0f);
  unsigned token = token_of(best.best);
  if (draw.temperature >= 1e-5f) {
    Scale scale{logit_of(best.best), draw.temperature};
    double lowest = exact_add((double)scale.max, exact_mul(draw.min_p_log, (double)draw.temperature));
    Candidate last = last_kept(bins, row, n, scale, lowest, draw);
    token = race(row, n, scale, lowest, last, draw);
  }
  if (threadIdx.x == 0) {
    to.status = DRAWN;
    to.token = token;
    *drawn = token;
    if (seen != nullptr) seen[token]++;
  }
  if (draw.n_top != NONE) write_logprobs(bins, logits, n, logit_of(raw.best), token, draw.n_top, to);
}

}  // namespace

// A block draws from a row.
extern "C" __global__ void __launch_bounds__(512)
    sample(const float* logits, const Draw* draws, const unsigned* lists, unsigned* seen, float* shaped, unsigned* drawn,
           Drawn* results, int vocab_size) {
  __shared__ Bins bins;
  gdc_trigger();
  gdc_wait();
  Draw draw = draws[blockIdx.x];
  unsigned* own_seen = draw.place == NONE ? nullptr : seen + (size_t)draw.place * vocab_size;
  float* own_shaped = shaped + (draw.shaped_row == NONE ? 0 : (size_t)draw.shaped_row * vocab_size);
  sample_row(bins, draw, lists, logits + (size_t)draw.logits_row * vocab_size, own_seen, own_shaped, vocab_size,
             drawn + blockIdx.x, results[blockIdx.x]);
}

// What a place knows of the tokens of its sequence becomes complete again: a block for each edit.
struct SeenEdit {
  unsigned place;
  unsigned forgets;   // first forget all
  List prompt, output;
};

extern "C" __global__ void __launch_bounds__(512)
    edit_seen(unsigned* seen, const SeenEdit* edits, const unsigned* lists, int vocab_size) {
  gdc_trigger();
  gdc_wait();
  SeenEdit edit = edits[blockIdx.x];
  unsigned* own = seen + (size_t)edit.place * vocab_size;
  if (edit.forgets) {
    for (int token = threadIdx.x; token < vocab_size; token += blockDim.x) own[token] = 0;
    __syncthreads();
  }
  for (unsigned i = threadIdx.x; i < edit.prompt.n; i += blockDim.x) {
    unsigned token = lists[edit.prompt.first + i];
    if (token < (unsigned)vocab_size) atomicOr(&own[token], 0x80000000u);
  }
  for (unsigned i = threadIdx.x; i < edit.output.n; i += blockDim.x) {
    unsigned token = lists[edit.output.first + i];
    if (token < (unsigned)vocab_size) atomicAdd(&own[token], 1u);
  }
}
