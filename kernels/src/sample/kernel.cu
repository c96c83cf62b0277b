// The sampler: rows of logits become tokens, as the CPU's sampler defines them.
//
// `sample_shape` and `sample_weigh` cut a row into parts, a block for each; `sample_draw` joins them, a block for each row.
#include "logprobs.cuh"
#include "race.cuh"
#include "select.cuh"
#include "shape.cuh"

// What the kernels know of a part of a row; sample/cuda.rs takes memory for it.
struct Part {
  Candidate raw_best, best;
  unsigned raw_first_bad, first_bad;
  double weights;  // of the raw logits, relative to the row's largest
  double score;    // of the winner
  unsigned winner;
  unsigned unused;
};

// The first digit of a part's candidates.
struct PartBins {
  unsigned long long uppers[N_BINS], lowers[N_BINS];
  unsigned counts[N_BINS];
};

namespace {

static_assert(sizeof(Draw) == 24 * 4 && sizeof(Drawn) == 46 * 4, "Draws::N_WORDS and Drawn::N_WORDS");
static_assert(sizeof(Part) == 6 * 8 && sizeof(PartBins) == 5120 * 8, "the words of the workspace");

// The operands that all three kernels take.
struct Step {
  const float* logits;
  const Draw* draws;
  float* shaped;
  Part* parts;
  PartBins* bins;
  int n_parts, vocab_size;
};

// A row as it is after `sample_shape`.
struct Row {
  const float *logits, *shaped;
  Best raw, best;

  __device__ __forceinline__ bool can_draw() const { return !raw.is_bad() && !best.is_bad() && !best.has_none(); }
};

__device__ __forceinline__ float* shaped_row(const Step& op, const Draw& draw) {
  return op.shaped + (size_t)draw.shaped_row * op.vocab_size;
}

__device__ __forceinline__ const float* logits_row(const Step& op, const Draw& draw) {
  return op.logits + (size_t)draw.logits_row * op.vocab_size;
}

// The tokens of a part: multiples of 128 but for the last one.
__device__ __forceinline__ Range range_of(const Step& op, int part) {
  int len = ((op.vocab_size + op.n_parts - 1) / op.n_parts + 127) / 128 * 128;
  return {min(part * len, op.vocab_size), min((part + 1) * len, op.vocab_size)};
}

__device__ __forceinline__ Row row_of(const Step& op, const Draw& draw, int idx) {
  const float* logits = logits_row(op, draw);
  Row row{logits, draw.shaped_row == NONE ? logits : shaped_row(op, draw), {~(Candidate)0, NONE}, {~(Candidate)0, NONE}};
  for (int i = 0; i < op.n_parts; i++) {
    const Part& part = op.parts[idx * op.n_parts + i];
    row.raw = joined(row.raw, {part.raw_best, part.raw_first_bad});
    row.best = joined(row.best, {part.best, part.first_bad});
  }
  return row;
}

__device__ __forceinline__ bool is_greedy(const Draw& draw) { return draw.temperature < 1e-5f; }
__device__ __forceinline__ bool is_filtered(const Draw& draw) { return draw.top_k != NONE || draw.top_p < 1.0f; }

// What min_p keeps.
__device__ __forceinline__ Candidates candidates_of(const Draw& draw, const Row& row) {
  Scale scale{logit_of(row.best.best), draw.temperature};
  double lowest = exact_add((double)scale.max, exact_mul(double_of(draw.min_p_log), (double)draw.temperature));
  return {row.shaped, scale, lowest, ~(Candidate)0};
}

__device__ __forceinline__ void write_bins(const Bins& from, PartBins& to) {
  for (int i = threadIdx.x; i < N_BINS; i += blockDim.x) {
    to.counts[i] = from.counts[i];
    to.uppers[i] = from.uppers[i];
    to.lowers[i] = from.lowers[i];
  }
}

__device__ __forceinline__ void add_bins(const Step& op, Bins& to) {
  const PartBins* parts = op.bins + (size_t)blockIdx.x * op.n_parts;
  for (int i = threadIdx.x; i < N_BINS; i += blockDim.x) {
    unsigned count = 0;
    Weight weight{0, 0};
    for (int part = 0; part < op.n_parts; part++) {
      count += parts[part].counts[i];
      weight = {weight.upper + parts[part].uppers[i], weight.lower + parts[part].lowers[i]};
    }
    to.counts[i] = count;
    to.uppers[i] = weight.upper;
    to.lowers[i] = weight.lower;
  }
  __syncthreads();
}

// Draws from what top_k, then top_p keep. The parts have the first digit of the candidates.
__device__ __forceinline__ unsigned draw_filtered(const Step& op, Bins& bins, const Draw& draw, const Row& row) {
  Candidates of = candidates_of(draw, row);
  bool is_filled = true;
  add_bins(op, bins);
  if (draw.top_k != NONE) {
    if (draw.top_k < count_filled(bins)) of.last = select(bins, of, op.vocab_size, {draw.top_k, false, 0}, true);
    is_filled = false;
  }
  if (draw.top_p < 1.0f) of.last = select(bins, of, op.vocab_size, {0, true, (double)draw.top_p}, is_filled);
  return race(of, {0, op.vocab_size}, row.best.best, draw).token;
}

__device__ __forceinline__ unsigned join_winners(const Step& op) {
  const Part* parts = op.parts + blockIdx.x * op.n_parts;
  Winner winner{parts[0].score, parts[0].winner};
  for (int i = 1; i < op.n_parts; i++) {
    bool is_better = parts[i].score > winner.score || (parts[i].score == winner.score && parts[i].winner < winner.token);
    if (is_better) winner = {parts[i].score, parts[i].winner};
  }
  return winner.token;
}

// Writes why no token is drawn.
__device__ __forceinline__ void refuse(const Row& row, unsigned* drawn, Drawn& to) {
  if (threadIdx.x > 0) return;
  *drawn = 0;
  bool is_bad = row.raw.is_bad() || row.best.is_bad();
  to.status = is_bad ? BAD_LOGIT : NO_CANDIDATE;
  to.token = row.raw.is_bad() ? row.raw.first_bad : is_bad ? row.best.first_bad : 0;
  to.bad_logit = (row.raw.is_bad() ? row.logits : row.shaped)[to.token];
}

}  // namespace

#define STEP_PARAMETERS \
  const float *logits, const Draw *draws, float *shaped, Part *parts, PartBins *part_bins, int n_parts, int vocab_size
#define STEP Step{logits, draws, shaped, parts, part_bins, n_parts, vocab_size}

// What may be drawn, and the best of it.
extern "C" __global__ void __launch_bounds__(512, 1)
    sample_shape(STEP_PARAMETERS, const unsigned* lists, const unsigned* seen) {
  gdc_trigger();
  gdc_wait();
  Step op = STEP;
  Draw draw = draws[blockIdx.y];
  Range range = range_of(op, blockIdx.x);
  const float* row = logits_row(op, draw);
  Best raw = best_of(row, range), best = raw;
  if (draw.shaped_row != NONE) {
    const unsigned* own_seen = draw.place == NONE ? nullptr : seen + (size_t)draw.place * vocab_size;
    shape(draw, lists, row, own_seen, shaped_row(op, draw), range);
    best = best_of(shaped_row(op, draw), range);
  }
  if (threadIdx.x > 0) return;
  Part& part = parts[blockIdx.y * n_parts + blockIdx.x];
  part.raw_best = raw.best;
  part.raw_first_bad = raw.first_bad;
  part.best = best.best;
  part.first_bad = best.first_bad;
}

// The race of a part; or, where filters decide who runs, the first digit of its candidates.
extern "C" __global__ void __launch_bounds__(512, 1) sample_weigh(STEP_PARAMETERS) {
  __shared__ Bins bins;
  gdc_trigger();
  gdc_wait();
  Step op = STEP;
  Draw draw = draws[blockIdx.y];
  Row row = row_of(op, draw, blockIdx.y);
  if (!row.can_draw()) return;
  int idx = blockIdx.y * n_parts + blockIdx.x;
  Range range = range_of(op, blockIdx.x);
  if (draw.n_top != NONE) {
    double weights = sum_weights(row.logits, range, logit_of(row.raw.best));
    if (threadIdx.x == 0) parts[idx].weights = weights;
  }
  if (is_greedy(draw)) return;
  Candidates of = candidates_of(draw, row);
  if (is_filtered(draw)) {
    fill(bins, of, range, 0, 0, draw.top_k == NONE);
    write_bins(bins, part_bins[idx]);
    return;
  }
  Winner winner = race(of, range, row.best.best, draw);
  if (threadIdx.x > 0) return;
  parts[idx].score = winner.score;
  parts[idx].winner = winner.token;
}

// The token, and its log-probabilities.
extern "C" __global__ void __launch_bounds__(512, 1)
    sample_draw(STEP_PARAMETERS, unsigned* seen, unsigned* drawn, Drawn* results) {
  __shared__ Bins bins;
  gdc_trigger();
  gdc_wait();
  Step op = STEP;
  Draw draw = draws[blockIdx.x];
  Row row = row_of(op, draw, blockIdx.x);
  Drawn& to = results[blockIdx.x];
  if (!row.can_draw()) return refuse(row, drawn + blockIdx.x, to);
  unsigned token = is_greedy(draw)     ? token_of(row.best.best)
                   : is_filtered(draw) ? draw_filtered(op, bins, draw, row)
                                       : join_winners(op);
  if (threadIdx.x == 0) {
    drawn[blockIdx.x] = token;
    to.status = DRAWN;
    to.token = token;
    if (draw.place != NONE) seen[(size_t)draw.place * vocab_size + token]++;
  }
  if (draw.n_top == NONE) return;
  double weights = 0;
  for (int i = 0; i < n_parts; i++) weights += parts[blockIdx.x * n_parts + i].weights;
  double log_sum = (double)logit_of(row.raw.best) + log(weights);
  write_logprobs(bins, row.logits, vocab_size, log_sum, token, draw.n_top, to);
}

// What a place knows of the tokens of its sequence becomes complete again: a block for each edit.
struct SeenEdit {
  unsigned place;
  unsigned forgets;   // first forget all
  List prompt, output;
};

extern "C" __global__ void __launch_bounds__(512, 1)
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
