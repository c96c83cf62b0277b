// What kernels of rows share: pieces of 16 bytes, and loops over elements.
#pragma once
#include "kernel.cuh"

__device__ __forceinline__ bool is_aligned(const void* at) { return (size_t)at % 16 == 0; }

__device__ __forceinline__ float4 load4(const float* at) { return *(const float4*)at; }
__device__ __forceinline__ void store4(float* at, float4 v) { *(float4*)at = v; }

// N elements, widened: 1 of any alignment, or 4 that start at a multiple of their size.
template <int N, class T>
__device__ __forceinline__ void load_floats(const T* at, float* to) {
  static_assert(N == 1 || N == 4, "pieces");
  struct alignas(N * sizeof(T)) Piece {
    T v[N];
  } piece = *(const Piece*)at;
#pragma unroll
  for (int i = 0; i < N; i++) to[i] = to_float(piece.v[i]);
}

// Rounds 16 bytes of elements and stores them. `at` is a multiple of 16.
template <class T>
__device__ __forceinline__ void store_rounded(void* at, const float* from) {
  constexpr int N = 16 / sizeof(T);
  struct alignas(16) Piece {
    T v[N];
  } piece;
#pragma unroll
  for (int i = 0; i < N; i++) piece.v[i] = from_float<T>(from[i]);
  *(Piece*)at = piece;
}

// x[i] = f(i, x[i]) for all i below n; the threads of the grid take four neighbours at a time where x is aligned.
template <class F>
__device__ __forceinline__ void for_each(unsigned n, float* x, F f) {
  unsigned thread = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
  unsigned n_pieces = is_aligned(x) ? n / 4 : 0;
  for (unsigned piece = thread; piece < n_pieces; piece += step) {
    unsigned i = piece * 4;
    float4 v = load4(x + i);
    store4(x + i, make_float4(f(i, v.x), f(i + 1, v.y), f(i + 2, v.z), f(i + 3, v.w)));
  }
  for (unsigned i = n_pieces * 4 + thread; i < n; i += step) x[i] = f(i, x[i]);
}
