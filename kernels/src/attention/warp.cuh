// What a lane learns from its neighbours, and 16-bit elements in pairs and pieces.
#pragma once
#include "../cuda/kernel.cuh"

// The maximum, and the sum, over four neighbouring lanes, in all of them.
__device__ __forceinline__ float quad_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(~0u, value, 1));
  return fmaxf(value, __shfl_xor_sync(~0u, value, 2));
}
__device__ __forceinline__ float quad_sum(float value) {
  value += __shfl_xor_sync(~0u, value, 1);
  return value + __shfl_xor_sync(~0u, value, 2);
}

// The sum over the lanes up to this one.
__device__ __forceinline__ int warp_scan(int value) {
  int lane = threadIdx.x % 32;
  for (int step = 1; step < 32; step *= 2) {
    int earlier = __shfl_up_sync(~0u, value, step);
    if (lane >= step) value += earlier;
  }
  return value;
}

// How many lanes say yes.
__device__ __forceinline__ int warp_count(bool is) { return __popc(__ballot_sync(~0u, is)); }

// The value of one lane.
__device__ __forceinline__ int warp_get(int value, int lane) { return __shfl_sync(~0u, value, lane); }

// Two elements of 16 bits, the first one in the lower half.
template <class T> __device__ __forceinline__ unsigned pack2(float low, float high) {
  T pair[2] = {from_float<T>(low), from_float<T>(high)};
  unsigned packed;
  memcpy(&packed, pair, sizeof packed);
  return packed;
}

// The elements of an aligned piece of 16 bytes.
template <class T> __device__ __forceinline__ void load_piece(const char* from, float* to) {
  constexpr int N = 16 / sizeof(T);
  struct alignas(16) Piece {
    T elements[N];
  } piece = *(const Piece*)from;
#pragma unroll
  for (int i = 0; i < N; i++) to[i] = to_float(piece.elements[i]);
}
