// CUDA C++ for g++: what the kernels use of the language and of its built-in functions.
// Float atomics are left out on purpose: the order of sums must not depend on the schedule.
#pragma once
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>

#include <cuda.h>
#include <driver_types.h>
#include <vector_functions.h>
#include <vector_types.h>
// After vector_types.h.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "fiber.h"
#include "register.h"

#undef __shared__
#undef __launch_bounds__
#undef __global__
#undef __device__
#undef __host__
#undef __forceinline__
#undef __noinline__
#undef __grid_constant__
#undef __constant__
#undef __restrict__
#define __shared__ static thread_local   // the only thread-local data of this library: set to NaN as one segment
#define __global__ standin_kernel   // build.py finds kernels by these marks and takes the marks away
#define __launch_bounds__(...) standin_bounds __VA_ARGS__ standin_bounds_end
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
#define __constant__ static const
#define __restrict__ __restrict

#define threadIdx (emu::block.current->thread)
#define blockIdx (emu::block.index)
#define blockDim (emu::block.n_threads)
#define gridDim (emu::block.n_blocks)
constexpr int warpSize = 32;

using std::max;
using std::min;

inline void __syncthreads(int line = __builtin_LINE()) { emu::block_barrier(line); }
inline void __syncwarp(unsigned mask = ~0u) { emu::warp_barrier(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
[[noreturn]] inline void __trap() { emu::fail(719, "__trap"); }

inline unsigned __activemask() { emu::fail(719, "__activemask says nothing of which lanes converge: pass a mask"); }

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  unsigned lane = emu::block.lane();
  emu::share_in_warp(mask, value);
  return emu::lane_value<T>(lane / width * width + source % width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  unsigned lane = emu::block.lane(), source = lane ^ bits;
  emu::share_in_warp(mask, value);
  return emu::lane_value<T>(source / width <= lane / width ? source : lane);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  unsigned lane = emu::block.lane();
  emu::share_in_warp(mask, value);
  return emu::lane_value<T>(lane % width >= delta ? lane - delta : lane);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  unsigned lane = emu::block.lane();
  emu::share_in_warp(mask, value);
  return emu::lane_value<T>(lane % width + delta < unsigned(width) ? lane + delta : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  emu::share_in_warp(mask, predicate);
  unsigned votes = 0;
  for (unsigned lane = 0; lane < 32; lane++) {
    if ((mask >> lane) & 1) votes |= unsigned(emu::lane_value<int>(lane) != 0) << lane;
  }
  return votes;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  emu::share_in_warp(mask, value);
  unsigned same = 0;
  for (unsigned lane = 0; lane < 32; lane++) {
    if ((mask >> lane) & 1) same |= unsigned(emu::lane_value<T>(lane) == value) << lane;
  }
  return same;
}
template <class T, class F>
T emu_reduce(unsigned mask, T value, F join) {
  emu::share_in_warp(mask, value);
  bool first = true;
  T result = value;
  for (unsigned lane = 0; lane < 32; lane++) {
    if (!((mask >> lane) & 1)) continue;
    result = first ? emu::lane_value<T>(lane) : join(result, emu::lane_value<T>(lane));
    first = false;
  }
  return result;
}
template <class T>
T __reduce_add_sync(unsigned mask, T value) { return emu_reduce(mask, value, [](T a, T b) { return T(a + b); }); }
template <class T>
T __reduce_max_sync(unsigned mask, T value) { return emu_reduce(mask, value, [](T a, T b) { return a > b ? a : b; }); }
template <class T>
T __reduce_min_sync(unsigned mask, T value) { return emu_reduce(mask, value, [](T a, T b) { return a < b ? a : b; }); }
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) { return emu_reduce(mask, value, [](unsigned a, unsigned b) { return a | b; }); }
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) { return emu_reduce(mask, value, [](unsigned a, unsigned b) { return a & b; }); }

inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) {
  static int votes;   // fibers do not run at once
  emu::block_barrier(line);
  votes = 0;
  emu::block_barrier(line);
  votes += predicate != 0;
  emu::block_barrier(line);
  int result = votes;
  emu::block_barrier(line);
  return result;
}
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) { return __syncthreads_count(predicate, line) != 0; }
inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) { return __syncthreads_count(!predicate, line) == 0; }

// Loads with a cache hint.
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldca(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> void __stcg(T* p, T value) { *p = value; }
template <class T> void __stcs(T* p, T value) { *p = value; }

// Integer atomics. Fibers do not run at once, so plain reads and writes are atomic.
template <class T, class F>
T emu_atomic(T* p, F next) {
  static_assert(std::is_integral_v<T>, "atomics are for integers: sums of floats have a fixed order");
  T old = *p;
  *p = next(old);
  return old;
}
#define STANDIN_ATOMIC(name, expression)                                  \
  template <class T>                                                      \
  T name(T* p, std::type_identity_t<T> v) {                               \
    return emu_atomic(p, [&]([[maybe_unused]] T old) -> T { return expression; }); \
  }
STANDIN_ATOMIC(atomicAdd, old + v)
STANDIN_ATOMIC(atomicSub, old - v)
STANDIN_ATOMIC(atomicMax, old > v ? old : v)
STANDIN_ATOMIC(atomicMin, old < v ? old : v)
STANDIN_ATOMIC(atomicOr, old | v)
STANDIN_ATOMIC(atomicAnd, old & v)
STANDIN_ATOMIC(atomicXor, old ^ v)
STANDIN_ATOMIC(atomicExch, v)
STANDIN_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
STANDIN_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
#undef STANDIN_ATOMIC
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> desired) {
  return emu_atomic(p, [&](T old) { return old == expected ? desired : old; });
}

// Arithmetic.
template <class To, class From>
To emu_bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.0f), 1.0f); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __float2float_rn(float x) { return x; }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned result = 0;
  for (int i = 0; i < 32; i++) result |= ((x >> i) & 1) << (31 - i);
  return result;
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  uint64_t bytes = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) result |= unsigned(bytes >> (selector >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}
