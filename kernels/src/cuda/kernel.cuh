// What every kernel includes. nvcc compiles it for the GPU, g++ for the stand-in (standin/README.md).
#pragma once
#include "ptx.cuh"

#if defined(__CUDACC__)
// Dynamic shared memory, aligned for 128-byte swizzled tiles.
#define DYN_SMEM(T, name)                                             \
  extern __shared__ __align__(1024) unsigned char name##_bytes[];     \
  T* name = reinterpret_cast<T*>(name##_bytes)
#else
#define DYN_SMEM(T, name) T* name = reinterpret_cast<T*>(emu::block.launch->shared)
#endif

// Bodies that use TMA tiles or wgmma stand between `#if HAS_SM90A` and `#endif`: they are empty for other targets.
#if !defined(__CUDACC__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HAS_SM90A 1
#else
#define HAS_SM90A 0
#endif

typedef __nv_bfloat16 bf16;
typedef __half f16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(f16 x) { return __half2float(x); }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

// Rounds to nearest, ties to even.
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) { return x; }
template <>
__device__ __forceinline__ f16 from_float<f16>(float x) { return __float2half_rn(x); }
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// ---- sums and maxima over a warp: all 32 lanes take part, all get the result, the order is that of a butterfly ----

struct SumOp {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return a + b; }
};
struct MaxOp {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const { return a > b ? a : b; }
};

template <class T, class Join>
__device__ __forceinline__ T warp_reduce(T value, Join join) {
#if defined(__CUDACC__)
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) value = join(value, __shfl_xor_sync(0xffffffffu, value, bits));
  return value;
#else
  emu::share_in_warp(~0u, value);
  return emu::once_in_warp<T>([join] {
    T values[32];
    for (int lane = 0; lane < 32; lane++) values[lane] = emu::lane_value<T>(lane);
    for (int bits = 16; bits > 0; bits /= 2) {
      for (int lane = 0; lane < bits; lane++) values[lane] = join(values[lane], values[lane + bits]);
    }
    return values[0];
  });
#endif
}

template <class T>
__device__ __forceinline__ T warp_sum(T value) { return warp_reduce(value, SumOp()); }

// NaN among the values may be lost.
template <class T>
__device__ __forceinline__ T warp_max(T value) { return warp_reduce(value, MaxOp()); }

// ---- over a block of whole warps: all threads take part and get the result; warps are joined in their order ----

template <class T, class Join>
__device__ __forceinline__ T block_reduce(T value, Join join) {
  __shared__ T of_warp[32];
  value = warp_reduce(value, join);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  T result = of_warp[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; warp++) result = join(result, of_warp[warp]);
  __syncthreads();   // the next call writes `of_warp`
  return result;
}

template <class T>
__device__ __forceinline__ T block_sum(T value) { return block_reduce(value, SumOp()); }

template <class T>
__device__ __forceinline__ T block_max(T value) { return block_reduce(value, MaxOp()); }
