// y = then(W . x + bias) in tiles of 128 rows of W and NT tokens on Hopper: a warp copies boxes of W and x into a ring, two
// warpgroups multiply them, W on the side of wgmma that is 64 rows high.
#pragma once
#include "tiles.cuh"

namespace {

constexpr int STREAM_THREADS = THREADS + 32;

template <int NT>
struct Ring {
  static constexpr int STAGES = NT == 64 ? 4 : 5;
  static constexpr int WEIGHT_BYTES = TILE_ROWS * STEP_BYTES;
  static constexpr int STAGE_BYTES = WEIGHT_BYTES + NT * STEP_BYTES;
  // Tokens that are written at a time, and the memory for them behind the ring.
  static constexpr int PART = NT < 16 ? NT : 16;
};

// What a multiprocessor has room for.
constexpr int stream_blocks(int n_tokens) { return n_tokens == 128 ? 1 : 2; }

struct StreamOperands {
  const CUtensorMap *weight, *x;
  int k, m;
  Output to;
  Sharing with;
};

// Barriers of the ring: a stage is full when its bytes have come, and empty when all warps have multiplied it.
template <int NT>
struct Barriers {
  uint64_t full[Ring<NT>::STAGES], empty[Ring<NT>::STAGES];
};

#if HAS_SM90A

template <int NT>
__device__ __forceinline__ Work stream_work(const StreamOperands& of) {
  Work work;
  work.n_row_tiles = (of.to.width() + of.to.rows() - 1) / of.to.rows();
  work.n_steps = (of.k + 63) / 64;
  work.n_units = (long long)work.n_row_tiles * ((of.m + NT - 1) / NT) * work.n_steps;
  work.n_blocks = (int)min((long long)gridDim.x, work.n_units);
  return work;
}

// Tiles of the same rows of W are neighbours.
template <int NT>
__device__ __forceinline__ Tile stream_tile(const StreamOperands& of, int tile) {
  int n_token_tiles = (of.m + NT - 1) / NT;
  return {0, tile / n_token_tiles * of.to.rows(), tile % n_token_tiles * NT, of.m, 0};
}

// By one thread: copies the steps of units `begin` to `end`; the first weights come before the kernels in front have ended.
template <int NT>
__device__ __forceinline__ void produce(const StreamOperands& of, const Work& work, char* ring, Barriers<NT>& bars,
                                        bool is_copying) {
  using R = Ring<NT>;
  long long begin = first_unit(work, blockIdx.x);
  int n = (int)(first_unit(work, blockIdx.x + 1) - begin), n_early = min(n, R::STAGES);
  uint64_t once = policy_evict_first(), often = policy_evict_last();
  auto weights = [&](int i) {
    int step = (int)((begin + i) % work.n_steps);
    int row = stream_tile<NT>(of, (int)((begin + i) / work.n_steps)).first_row;
    char* to = ring + i % R::STAGES * R::STAGE_BYTES;
    uint64_t* full = &bars.full[i % R::STAGES];
    mbar_expect(full, R::STAGE_BYTES);
    // Eight gates, then their ups.
    if (of.to.is_gated()) tma_load_4d(to, of.weight, full, step * 64, 0, 0, row / 8, once);
    else tma_load_2d(to, of.weight, full, step * 64, row, once);
  };
  auto tokens = [&](int i) {
    char* to = ring + i % R::STAGES * R::STAGE_BYTES + R::WEIGHT_BYTES;
    int token = stream_tile<NT>(of, (int)((begin + i) / work.n_steps)).first_token;
    tma_load_2d(to, of.x, &bars.full[i % R::STAGES], (int)((begin + i) % work.n_steps) * 64, token, often);
  };
  if (is_copying) {
    for (int i = 0; i < n_early; i++) weights(i);
  }
  gdc_wait();
  if (!is_copying) return;
  for (int i = 0; i < n_early; i++) tokens(i);
  for (int i = n_early; i < n; i++) {
    mbar_wait(&bars.empty[i % R::STAGES], i / R::STAGES - 1);
    weights(i);
    tokens(i);
  }
}

// Multiplies the steps of a tile; `i` counts the block's units.
template <class T, int NT>
__device__ __forceinline__ void multiply_steps(char* ring, Barriers<NT>& bars, int i, int end, float (&sums)[NT / 2]) {
  using R = Ring<NT>;
  int group = threadIdx.x / 128;
  // A wait speaks for its own warp only, so that each warp releases the stage.
  auto release = [&](int i) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbar_arrive(&bars.empty[i % R::STAGES]);
  };
  for (int first = i; i < end; i++) {
    char* stage = ring + i % R::STAGES * R::STAGE_BYTES;
    mbar_wait(&bars.full[i % R::STAGES], i / R::STAGES);
    uint64_t w = desc_k_major(stage + group * 64 * STEP_BYTES), x = desc_k_major(stage + R::WEIGHT_BYTES);
    wgmma_fence();
#pragma unroll
    for (int q = 0; q < 4; q++) wgmma<T, 0, 0>(sums, w + 2 * q, x + 2 * q, i > first || q > 0);
    wgmma_commit();
    if (i > first) {
      wgmma_wait<1>();
      release(i - 1);
    }
  }
  wgmma_wait<0>();
  release(end - 1);
}

template <class T, int NT>
__device__ __forceinline__ void consume(const StreamOperands& of, const Work& work, char* ring, Barriers<NT>& bars) {
  using R = Ring<NT>;
  auto meet = [] { bar_sync(1, THREADS); };
  float* memory = reinterpret_cast<float*>(ring + R::STAGES * R::STAGE_BYTES);
  long long begin = first_unit(work, blockIdx.x), end = first_unit(work, blockIdx.x + 1);
  for (long long unit = begin; unit < end;) {
    int tile = (int)(unit / work.n_steps);
    long long tile_begin = (long long)tile * work.n_steps, last = min(end, tile_begin + work.n_steps);
    float sums[1][NT / 8][4];
    auto& flat = reinterpret_cast<float(&)[NT / 2]>(sums);
    multiply_steps<T, NT>(ring, bars, (int)(unit - begin), (int)(last - begin), flat);
    bool is_whole = unit == tile_begin && last == tile_begin + work.n_steps, is_second = unit != begin;
    unit = last;
    if (!is_whole && !join<NT / 2>(of.with, work, tile, is_second, flat, meet)) continue;
    write_tile<T, NT, R::PART>(of.to, stream_tile<NT>(of, tile), sums, threadIdx.x / 32 * 16, 0, memory, meet);
  }
}

#endif

template <class T, int NT>
__device__ __forceinline__ void stream(const StreamOperands& of) {
#if HAS_SM90A
  using R = Ring<NT>;
  DYN_SMEM(char, ring);
  __shared__ Barriers<NT> bars;
  if (threadIdx.x == 0) {
    for (int i = 0; i < R::STAGES; i++) {
      mbar_init(&bars.full[i], 1);
      mbar_init(&bars.empty[i], N_WARPS);
    }
    mbar_init_fence();
  }
  __syncthreads();
  gdc_trigger();
  Work work = stream_work<NT>(of);
  bool has_work = (int)blockIdx.x < work.n_blocks;
  if (threadIdx.x >= THREADS && has_work) {
    produce<NT>(of, work, ring, bars, threadIdx.x == THREADS);
    return;
  }
  gdc_wait();
  if (has_work) consume<T, NT>(of, work, ring, bars);
#endif
}

}  // namespace

#define STREAM(NT, NAME, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(STREAM_THREADS, stream_blocks(NT))                                    \
      stream_##NT##_##NAME(const __grid_constant__ CUtensorMap weight, const __grid_constant__ CUtensorMap x, int n, \
                           int k, int m, const float* bias, char* out, int out_stride, int then, float scale, int act, \
                           float a, float b, float c, float* partial, unsigned* counters) {                          \
    Output to{out, out_stride, 0, 0, n, bias, nullptr, {then, scale, {act, a, b, c}}};                               \
    stream<T, NT>({&weight, &x, k, m, to, {partial, counters}});                                                     \
  }

#define STREAMS(NAME, T) STREAM(8, NAME, T) STREAM(16, NAME, T) STREAM(32, NAME, T) STREAM(64, NAME, T) \
  STREAM(128, NAME, T)
