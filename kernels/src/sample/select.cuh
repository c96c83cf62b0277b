// Which candidates are kept: the last one in rank, found digit by digit of the candidates' words (radix select), from the
// number of candidates before it or from their weight.
#pragma once
#include "row.cuh"

namespace {

constexpr int N_BINS = 2048;

// A sum of weights, each at most 1, in fixed point of 80 bits: exact in any order for up to 2^21 of them.
struct Weight {
  unsigned long long upper, lower;  // units of 2^-40 and of 2^-80

  __device__ __forceinline__ double value() const { return (double)upper * 0x1p-40 + (double)lower * 0x1p-80; }
};

__device__ __forceinline__ Weight weight_of(double weight) {
  double scaled = weight * 0x1p40;
  unsigned long long upper = (unsigned long long)scaled;
  return {upper, (unsigned long long)((scaled - (double)upper) * 0x1p40)};
}

// Candidates by one digit of their words.
struct Bins {
  unsigned counts[N_BINS];
  unsigned long long uppers[N_BINS], lowers[N_BINS];
  // Of the digit that was chosen: itself, and what comes before it.
  unsigned digit, n_before;
  Weight before, total;
};

// A search for the last candidate that is kept.
struct Goal {
  unsigned n;         // keep the first n candidates
  bool by_weight;     // or the fewest whose weights reach `part` of all
  double part;
};

// The digits of a word from the top: where each starts, and its bits. Ids are below 2^21.
struct Digit {
  int shift, n_bits;
};
__device__ __forceinline__ Digit digit_at(int round) {
  return round == 0 ? Digit{53, 11} : round == 1 ? Digit{42, 11} : round == 2 ? Digit{32, 10}
       : round == 3 ? Digit{10, 11} : Digit{0, 10};
}
constexpr int N_DIGITS = 5;

// The first warp looks for the first digit at which the goal is reached. What comes before this digit is in `before` and
// `n_before`. A lane adds up 64 neighbouring digits.
__device__ __forceinline__ void find_digit(Bins& bins, const Goal& goal, double target, unsigned n_before, Weight before) {
  constexpr int PER_LANE = N_BINS / 32;
  int lane = threadIdx.x % 32, first = lane * PER_LANE;
  unsigned count = 0;
  Weight weight{0, 0};
  for (int i = first; i < first + PER_LANE; i++) {
    count += bins.counts[i];
    weight = {weight.upper + bins.uppers[i], weight.lower + bins.lowers[i]};
  }
  // What comes before each lane's digits.
  unsigned own_count = count;
  Weight own = weight;
  for (int step = 1; step < 32; step *= 2) {
    unsigned c = __shfl_up_sync(0xffffffffu, count, step);
    unsigned long long u = __shfl_up_sync(0xffffffffu, weight.upper, step);
    unsigned long long l = __shfl_up_sync(0xffffffffu, weight.lower, step);
    if (lane < step) continue;
    count += c;
    weight = {weight.upper + u, weight.lower + l};
  }
  if (lane == 31 && target < 0.0) bins.total = weight;
  if (target < 0.0) target = goal.part * Weight{__shfl_sync(0xffffffffu, weight.upper, 31),
                                                __shfl_sync(0xffffffffu, weight.lower, 31)}.value();
  count += n_before - own_count;
  weight = {weight.upper + before.upper - own.upper, weight.lower + before.lower - own.lower};
  for (int i = first; i < first + PER_LANE; i++) {
    unsigned next_count = count + bins.counts[i];
    Weight next{weight.upper + bins.uppers[i], weight.lower + bins.lowers[i]};
    bool was_reached = goal.by_weight ? weight.value() >= target : count >= goal.n;
    bool is_reached = goal.by_weight ? next.value() >= target : next_count >= goal.n;
    if (is_reached && !was_reached && bins.counts[i] > 0) {
      bins.digit = i;
      bins.n_before = count;
      bins.before = weight;
    }
    count = next_count;
    weight = next;
  }
}

// The candidates of a row: those up to `last` whose logit is at least `lowest`.
struct Candidates {
  const float* row;
  Scale scale;
  double lowest;
  Candidate last;

  __device__ __forceinline__ bool has(Candidate word, float logit) const {
    return word <= last && logit > -INFINITY && (double)logit >= lowest;
  }
};

// Counts the candidates of a range whose words begin with the digits of `prefix` before `round`, by the digit of `round`;
// and adds up their weights.
__device__ __forceinline__ void fill(Bins& bins, const Candidates& of, Range range, int round, Candidate prefix,
                                     bool by_weight) {
  Digit digit = digit_at(round);
  int above = digit.shift + digit.n_bits;
  for (int i = threadIdx.x; i < N_BINS; i += blockDim.x) {
    bins.counts[i] = 0;
    bins.uppers[i] = bins.lowers[i] = 0;
  }
  __syncthreads();
  for_each_logit(of.row, range, [&](unsigned token, float logit) {
    Candidate word = candidate(token, logit);
    bool is_here = round == 0 || word >> above == prefix >> above;
    if (!is_here || !of.has(word, logit)) return;
    unsigned at = (unsigned)(word >> digit.shift) & ((1u << digit.n_bits) - 1);
    atomicAdd(&bins.counts[at], 1u);
    if (!by_weight) return;
    Weight weight = weight_of(exp(of.scale.log_weight(logit)));
    atomicAdd(&bins.uppers[at], weight.upper);
    atomicAdd(&bins.lowers[at], weight.lower);
  });
  __syncthreads();
}

// The last candidate that is kept. There are more than the goal keeps, or it is by weight. `is_filled`: the bins have the
// first digit already.
__device__ __forceinline__ Candidate select(Bins& bins, const Candidates& of, int n, const Goal& goal, bool is_filled) {
  Candidate prefix = 0;
  unsigned n_before = 0;
  Weight before{0, 0};
  double target = -1.0;  // not yet known: the first round finds the sum of all weights
  for (int round = 0; round < N_DIGITS; round++) {
    if (round > 0 || !is_filled) fill(bins, of, {0, n}, round, prefix, goal.by_weight);
    if (threadIdx.x < 32) find_digit(bins, goal, target, n_before, before);
    __syncthreads();
    if (round == 0 && goal.by_weight) target = goal.part * bins.total.value();
    int shift = digit_at(round).shift;
    prefix |= (Candidate)bins.digit << shift;
    n_before = bins.n_before;
    before = bins.before;
    unsigned n_here = bins.counts[bins.digit];
    __syncthreads();
    // All of these are kept, or the only one is.
    if (n_here == 1 || (!goal.by_weight && n_before + n_here == goal.n)) {
      return prefix | (((Candidate)1 << shift) - 1);
    }
  }
  return prefix;
}

// How many candidates the bins have of the first digit.
__device__ __forceinline__ unsigned count_filled(const Bins& bins) {
  unsigned count = 0;
  for (int i = threadIdx.x; i < N_BINS; i += blockDim.x) count += bins.counts[i];
  return block_sum(count);
}

}  // namespace
