// The online softmax of a warp's 16 rows (Milakov and Gimelshein 2018), in the registers of `mma16816`:
// a lane holds columns of the rows lane / 4 and lane / 4 + 8. Scores are in units of log2.
#pragma once
#include "operands.cuh"

struct Softmax {
  float largest[2];
  float total[2];  // this lane's part until `finish`

  __device__ __forceinline__ void begin() {
    largest[0] = largest[1] = -INFINITY;
    total[0] = total[1] = 0.0f;
  }

  // Turns scores into weights relative to the largest so far; `shrink` is what earlier weights shrink by.
  template <int N> __device__ __forceinline__ void take(float (&scores)[N][4], float (&shrink)[2]) {
#pragma unroll
    for (int x = 0; x < 2; x++) {
      float now = largest[x];
#pragma unroll
      for (int j = 0; j < N; j++) now = fmaxf(now, fmaxf(scores[j][2 * x], scores[j][2 * x + 1]));
      now = quad_max(now);
      float base = now == -INFINITY ? 0.0f : now;  // nothing was seen yet
      shrink[x] = exp2f(largest[x] - base);
      largest[x] = now;
      total[x] *= shrink[x];
#pragma unroll
      for (int j = 0; j < N; j++) {
        scores[j][2 * x] = exp2f(scores[j][2 * x] - base);
        scores[j][2 * x + 1] = exp2f(scores[j][2 * x + 1] - base);
        total[x] += scores[j][2 * x] + scores[j][2 * x + 1];
      }
    }
  }

  // Adds up the lanes' totals.
  __device__ __forceinline__ void finish() {
    total[0] = quad_sum(total[0]);
    total[1] = quad_sum(total[1]);
  }
};

// What a finished row's sums are multiplied by: one over its total, a sink's share included.
__device__ __forceinline__ float finish_factor(float largest, float total, float sink) {
  float now = fmaxf(largest, sink);
  float own = exp2f(largest - now);
  return own / (total * own + exp2f(sink - now));
}

// The sink of a head in units of log2; without one it weighs nothing.
__device__ __forceinline__ float sink_of(const Operands& a, int head) {
  return a.sinks != nullptr ? a.sinks[head] * LOG2_E : -INFINITY;
}
