// What happens to a row of logits before temperature, in the order of the CPU's sampler: the grammar's mask, allowed
// tokens, forbidden tokens, biases, penalties.
#pragma once
#include "row.cuh"

namespace {

__device__ __forceinline__ bool is_masked(const Draw& draw, const unsigned* mask, unsigned token) {
  if (draw.mask.n == NONE) return false;
  unsigned word = token / 32;
  return word >= draw.mask.n || !(mask[word] >> token % 32 & 1);
}

// A token's logit with the penalties of a token that was seen: its word is the number of times it was drawn, and the
// highest bit tells whether the prompt contains it.
__device__ __forceinline__ float penalised(const Draw& draw, float logit, unsigned seen) {
  if (seen == 0) return logit;
  if (draw.repetition != 1.0f) {
    logit = logit > 0.0f ? logit / draw.repetition : exact_mul(logit, draw.repetition);
  }
  unsigned count = seen & 0x7fffffffu;
  if (count > 0 && (draw.presence != 0.0f || draw.frequency != 0.0f)) {
    logit = logit - exact_add(exact_mul(draw.frequency, (float)count), draw.presence);
  }
  return logit;
}

// Writes the shaped logits of a range to `shaped`. `seen` has a word for each token, or is null.
__device__ __forceinline__ void shape(const Draw& draw, const unsigned* lists, const float* logits, const unsigned* seen,
                                      float* shaped, Range range) {
  auto is_inside = [=](unsigned token) { return (unsigned)range.begin <= token && token < (unsigned)range.end; };
  const unsigned* mask = lists + draw.mask.first;
  bool are_listed = draw.allowed.n != NONE;
  for_each_logit(logits, range, [&](unsigned token, float logit) {
    shaped[token] = are_listed || is_masked(draw, mask, token) ? -INFINITY : logit;
  });
  __syncthreads();
  if (are_listed) {
    const unsigned* allowed = lists + draw.allowed.first;
    for (unsigned i = threadIdx.x; i < draw.allowed.n; i += blockDim.x) {
      unsigned token = allowed[i];
      if (is_inside(token) && !is_masked(draw, mask, token)) shaped[token] = logits[token];
    }
    __syncthreads();
  }
  const unsigned* forbidden = lists + draw.forbidden.first;
  for (unsigned i = threadIdx.x; i < draw.forbidden.n; i += blockDim.x) {
    if (is_inside(forbidden[i])) shaped[forbidden[i]] = -INFINITY;
  }
  __syncthreads();
  // A token may have several biases: one thread adds all of them, in their order.
  const unsigned* bias = lists + draw.bias.first;
  for (unsigned i = 0; i < draw.bias.n; i++) {
    unsigned token = bias[2 * i];
    if (is_inside(token) && token % blockDim.x == threadIdx.x) shaped[token] += __uint_as_float(bias[2 * i + 1]);
  }
  __syncthreads();
  if (seen == nullptr) return;
  for_each_logit(shaped, range, [&](unsigned token, float logit) {
    if (seen[token] != 0) shaped[token] = penalised(draw, logit, seen[token]);
  });
  __syncthreads();
}

}  // namespace
