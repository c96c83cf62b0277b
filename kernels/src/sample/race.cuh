// The draw: each kept token runs with an exponential variate of its own, divided by its weight, and the smallest wins (the
// Gumbel-max trick). A variate is a function of (seed, position, token) alone.
#pragma once
#include "select.cuh"

namespace {

struct Words {
  unsigned v[4];
};

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
__device__ __forceinline__ Words philox(const unsigned (&seed)[2], Words counter) {
  unsigned key0 = seed[0], key1 = seed[1];
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

struct Winner {
  double score;
  unsigned token;
};

__device__ __forceinline__ Words words_of(const Draw& draw, unsigned group) {
  return philox(draw.seed, {{group, draw.position[0], draw.position[1], 0}});
}

__device__ __forceinline__ unsigned word_at(const Words& words, unsigned at) {
  return at == 0 ? words.v[0] : at == 1 ? words.v[1] : at == 2 ? words.v[2] : words.v[3];
}

__device__ __forceinline__ double score_of(const Scale& scale, float logit, unsigned word) {
  return scale.log_weight(logit) - log(exponential(word));
}

// The winner among the candidates of a range; or the most probable token, if it scores higher.
__device__ __forceinline__ Winner race(const Candidates& of, Range range, Candidate best, const Draw& draw) {
  const Scale& scale = of.scale;
  unsigned group = NONE;
  Words words = words_of(draw, token_of(best) / 4);
  Winner winner{score_of(scale, logit_of(best), word_at(words, token_of(best) % 4)), token_of(best)};
  float rate = 1.0f / scale.temperature;
  for_each_logit(of.row, range, [&](unsigned token, float logit) {
    // Upper bounds in f32 spare most of the vocabulary the random words and the logarithms. The slack is more than f32
    // may be wrong by; the largest word without leading zeros gains 33 ln 2.
    float log_weight = (logit - scale.max) * rate;
    float to_beat = (float)winner.score - 0.01f + 1e-4f * log_weight;
    if (log_weight + 23.0f < to_beat || !of.has(candidate(token, logit), logit)) return;
    if (token / 4 != group) {
      group = token / 4;
      words = words_of(draw, group);
    }
    unsigned word = word_at(words, token % 4);
    if (log_weight + 0.6931472f * (float)(__clz((int)word) + 1) < to_beat) return;
    double score = score_of(scale, logit, word);
    if (score > winner.score || (score == winner.score && token < winner.token)) winner = {score, token};
  });
  double score = block_max(winner.score);
  return {score, block_reduce(winner.score == score ? winner.token : NONE, Min())};
}

}  // namespace
