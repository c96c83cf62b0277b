// What the parts of the sampler share: the words of a draw as sample/cuda.rs packs them, candidates, and loops over a row
// of logits.
#pragma once
#include "../cuda/kernel.cuh"

// Part of the lists that the draws of a step share.
struct List {
  unsigned first, n;
};

// One draw. The fields are the words that `Draws::push` writes, and start at any word.
struct Draw {
  unsigned logits_row;
  unsigned shaped_row;  // of working memory; NONE: the logits are drawn from as they are
  unsigned place;       // whose seen tokens are penalised and counted; NONE: nobody's
  float temperature, top_p;
  unsigned top_k;       // NONE: all
  unsigned min_p_log[2];  // natural logarithm of min_p, as f64; the lower half first, as all words of 64 bits
  float repetition, presence, frequency;
  unsigned n_top;       // most probable tokens that are wanted beside the drawn one; NONE: no log-probabilities
  unsigned seed[2], position[2];
  List bias;            // token and bits of a bias, in turn; n of both
  List allowed;         // tokens; `n` NONE: all
  List forbidden;       // tokens
  List mask;            // words of 32 tokens, the lowest bit first; `n` NONE: all tokens
};

constexpr int N_TOP_MAX = 20;

// What became of a draw. The fields are the words that `Drawn::read` reads.
struct Drawn {
  unsigned status;
  unsigned token;
  float bad_logit;  // of `token`, where the status is BAD_LOGIT
  float logprob;
  unsigned rank;
  unsigned n_top;
  unsigned top_tokens[N_TOP_MAX];
  float top_logprobs[N_TOP_MAX];
};

namespace {

constexpr unsigned NONE = 0xffffffffu;

enum Status { DRAWN, BAD_LOGIT, NO_CANDIDATE };

struct Min {
  template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a < b ? a : b; }
};

// Arithmetic that the compiler must not fuse: the results are those of the CPU's sampler.
#if defined(__CUDACC__)
__device__ __forceinline__ float exact_add(float a, float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float exact_mul(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ double exact_add(double a, double b) { return __dadd_rn(a, b); }
__device__ __forceinline__ double exact_mul(double a, double b) { return __dmul_rn(a, b); }
#else
inline float exact_add(float a, float b) { return a + b; }
inline float exact_mul(float a, float b) { return a * b; }
inline double exact_add(double a, double b) { return a + b; }
inline double exact_mul(double a, double b) { return a * b; }
#endif

// A double by its halves: draws start at any word, so their fields are of 32 bits.
__device__ __forceinline__ double double_of(const unsigned (&halves)[2]) {
#if defined(__CUDACC__)
  return __hiloint2double((int)halves[1], (int)halves[0]);
#else
  double value;
  memcpy(&value, halves, sizeof value);
  return value;
#endif
}

typedef unsigned long long Candidate;

// A token with its logit in one word, whose order is that of rank: the higher logit first, the lower id among equals.
__device__ __forceinline__ Candidate candidate(unsigned token, float logit) {
  unsigned bits = __float_as_uint(logit + 0.0f);  // one zero of both
  unsigned ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
  return (Candidate)~ascending << 32 | token;
}

__device__ __forceinline__ unsigned token_of(Candidate of) { return (unsigned)of; }

__device__ __forceinline__ float logit_of(Candidate of) {
  unsigned ascending = ~(unsigned)(of >> 32);
  return __uint_as_float(ascending >> 31 ? ascending & 0x7fffffffu : ~ascending);
}

// Some neighbouring tokens of a row: those that a block takes.
struct Range {
  int begin, end;
};

// f(token, logit) for the tokens of a range, by the threads of the block in turn. A thread takes four neighbours.
template <class F> __device__ __forceinline__ void for_each_logit(const float* row, Range range, F f) {
  bool is_aligned = (size_t)(row + range.begin) % 16 == 0;
  for (int first = range.begin + (int)threadIdx.x * 4; first < range.end; first += blockDim.x * 4) {
    if (is_aligned && first + 4 <= range.end) {
      float4 v = *(const float4*)(row + first);
      f(first, v.x);
      f(first + 1, v.y);
      f(first + 2, v.z);
      f(first + 3, v.w);
    } else {
      for (int token = first; token < min(first + 4, range.end); token++) f(token, row[token]);
    }
  }
}

// What turns logits into probabilities.
struct Scale {
  float max, temperature;

  // Logarithm of the probability relative to the most probable token's: 0 for that one.
  __device__ __forceinline__ double log_weight(float logit) const {
    return ((double)logit - (double)max) / (double)temperature;
  }
};

// The first bad logit of some, or else their best token.
struct Best {
  Candidate best;
  unsigned first_bad;  // NONE: there is none

  __device__ __forceinline__ bool is_bad() const { return first_bad != NONE; }
  __device__ __forceinline__ bool has_none() const { return logit_of(best) == -INFINITY; }
};

__device__ __forceinline__ Best joined(Best a, Best b) { return {min(a.best, b.best), min(a.first_bad, b.first_bad)}; }

__device__ __forceinline__ Best best_of(const float* row, Range range) {
  Candidate best = candidate(NONE, -INFINITY);
  unsigned first_bad = NONE;
  for_each_logit(row, range, [&](unsigned token, float logit) {
    if (!(logit < INFINITY)) first_bad = min(first_bad, token);
    best = min(best, candidate(token, logit));
  });
  return {block_reduce(best, Min()), block_reduce(first_bad, Min())};
}

}  // namespace
