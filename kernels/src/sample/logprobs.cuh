// Natural log-probabilities under the raw logits: of the drawn token, and of the most probable ones.
#pragma once
#include "select.cuh"

namespace {

// A token's rank among few: how many are before it.
__device__ __forceinline__ void write_top(const Candidate* found, unsigned n_found, double log_sum, Drawn& to) {
  for (unsigned i = threadIdx.x; i < n_found; i += blockDim.x) {
    unsigned rank = 0;
    for (unsigned j = 0; j < n_found; j++) rank += found[j] < found[i];
    to.top_tokens[rank] = token_of(found[i]);
    to.top_logprobs[rank] = (float)((double)logit_of(found[i]) - log_sum);
  }
  if (threadIdx.x == 0) to.n_top = n_found;
}

// The `n_top` first candidates of all, in `found`; returns how many there are. Candidates of probability 0 count too.
__device__ __forceinline__ unsigned find_top(Bins& bins, const float* row, int n, unsigned n_top, Candidate* found) {
  __shared__ unsigned n_found;
  Candidates all{row, {0, 1}, -INFINITY, ~(Candidate)0};
  fill(bins, all, {0, n}, 0, 0, false);
  Candidate last = all.last;
  if (n_top < count_filled(bins)) last = select(bins, all, n, Goal{n_top, false, 0}, true);
  if (threadIdx.x == 0) n_found = 0;
  __syncthreads();
  for_each_logit(row, {0, n}, [&](unsigned token, float logit) {
    if (logit > -INFINITY && candidate(token, logit) <= last) found[atomicAdd(&n_found, 1u)] = candidate(token, logit);
  });
  __syncthreads();
  // Rare: fewer tokens than wanted have a probability. One thread adds the first of the others.
  if (threadIdx.x == 0) {
    for (int token = 0; token < n && n_found < n_top; token++) {
      if (row[token] == -INFINITY) found[n_found++] = candidate(token, -INFINITY);
    }
  }
  __syncthreads();
  return n_found;
}

// The sum of the weights of a range at temperature 1.
__device__ __forceinline__ double sum_weights(const float* row, Range range, float max) {
  double sum = 0;
  for_each_logit(row, range, [&](unsigned, float logit) { sum += (double)expf(logit - max); });
  return block_sum(sum);
}

// `log_sum`: the logarithm of the sum of all weights.
__device__ __forceinline__ void write_logprobs(Bins& bins, const float* row, int n, double log_sum, unsigned token,
                                               unsigned n_top, Drawn& to) {
  __shared__ Candidate found[N_TOP_MAX];
  float chosen = row[token];
  unsigned n_before = 0;
  for_each_logit(row, {0, n}, [&](unsigned, float logit) { n_before += logit > chosen; });
  n_before = block_sum(n_before);
  if (threadIdx.x == 0) {
    to.logprob = (float)((double)chosen - log_sum);
    to.rank = n_before + 1;
    to.n_top = 0;
  }
  if (n_top == 0) return;
  unsigned n_found = find_top(bins, row, n, min(min(n_top, (unsigned)N_TOP_MAX), (unsigned)n), found);
  write_top(found, n_found, log_sum, to);
}

}  // namespace
