// The draw: each kept token runs with an exponential variate of its own, divided by its weight, and the smallest wins (the
// Gumbel-max trick). A variate is a function of (seed, position, token) alone.
#pragma once
#include "row.cuh"

namespace {

struct Words {
  unsigned v[4];
};

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
__device__ __forceinline__ Words philox(unsigned long long seed, Words counter) {
  unsigned key0 = (unsigned)seed, key1 = (unsigned)(seed >> 32);
  Words w = counter;
#pragma unroll
  for (int round = 0; round < 10; round++) {
    unsigned long long a = (unsigned long long)0xD2511F53u * w.v[0], b = (unsigned long long)0xCD9E8D57u * w.v[2];
    w = {{(unsigned)(b >> 32) ^ w.v[1] ^ key0, (unsigned)b, (unsigned)(a >> 32) ^ w.v[3] ^ key1, (unsigned)a}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return w;
}

// An exponential variate from a random word. At least `word / 2^32`, as -ln(1 - u) is at least u.
__device__ __forceinline__ double exponential(unsigned word) {
  double uniform = ((double)word + 0.5) / 4294967296.0;
  return -log1p(-uniform);
}

// The winner among the candidates up to `last` whose logit is at least `lowest`.
__device__ __forceinline__ unsigned race(const float* row, int n, const Scale& scale, double lowest, Candidate last,
                                         const Draw& draw) {
  double best = -INFINITY;
  unsigned winner = NONE, group = NONE;
  Words words{};
  for_each_logit(row, n, [&](unsigned token, float logit) {
    if (logit == -INFINITY || (double)logit < lowest || candidate(token, logit) > last) return;
    double log_weight = scale.log_weight(logit);
    if (token / 4 != group) {
      group = token / 4;
      words = philox(draw.seed, {{group, (unsigned)draw.position, (unsigned)(draw.position >> 32), 0}});
    }
    unsigned at = token % 4;
    unsigned word = at == 0 ? words.v[0] : at == 1 ? words.v[1] : at == 2 ? words.v[2] : words.v[3];
    // A cheap upper bound spares most of the vocabulary the two logarithms.
    double gain_max = (double)(__clz((int)word) + 1) * 0.693147180559945309417;
    if (exact_add(log_weight, gain_max) < best) return;
    double score = log_weight - log(exponential(word));
    if (score > best || (score == best && token < winner)) {
      best = score;
      winner = token;
    }
  });
  double best_of_all = block_max(best);
  return block_reduce(best == best_of_all ? winner : NONE, Min());
}

}  // namespace
