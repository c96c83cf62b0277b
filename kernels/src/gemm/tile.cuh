// y = then(W . x + bias) in tiles of 128 rows of W and NT tokens, for all cards: asynchronous copies into a ring, products by
// mma.sync (f16, bf16) or in f32. Heads and experts are groups of tokens with a matrix each.
#pragma once
#include "tiles.cuh"

namespace {

struct Operands {
  const char* weight;
  const unsigned long long* weights;   // address of each group's matrix, or null
  int w_stride, k;                     // in elements
  const char* x;
  int x_stride;
  unsigned long long x_step;   // from one head to the next
  const unsigned* starts;      // first row of each expert, or null
  int n_groups, m;
  Output to;
  Sharing with;
};

template <class T, int NT>
struct Shape {
  static constexpr int STAGES = NT == 128 ? 3 : 4;
  static constexpr int STAGE_BYTES = (TILE_ROWS + NT) * STEP_BYTES;
  static constexpr int WARPS_T = NT == 16 ? 1 : NT == 64 ? 2 : 4;   // along the tokens
  static constexpr int WARPS_R = N_WARPS / WARPS_T;                 // along the rows
  static constexpr int SLABS = TILE_ROWS / 16 / WARPS_R;            // of 16 rows, of a warp
  static constexpr int COLS = NT / 8 / WARPS_T;                     // of 8 tokens, of a warp
  // Tokens that are written at a time: their sums fit in one stage.
  static constexpr int PART = NT < 32 ? NT : 32;
  static_assert(PART * TOKEN_STRIDE * sizeof(float) <= STAGE_BYTES, "the sums fit in a stage");
};

template <class T, int NT>
using Sums = float[Shape<T, NT>::SLABS][Shape<T, NT>::COLS][4];

// First row and first token of this warp in a tile.
template <class T, int NT>
__device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / Shape<T, NT>::WARPS_T * Shape<T, NT>::SLABS * 16; }
template <class T, int NT>
__device__ __forceinline__ int warp_token() { return threadIdx.x / 32 % Shape<T, NT>::WARPS_T * Shape<T, NT>::COLS * 8; }

// By one warp: the number of token tiles of the groups up to each one.
template <int NT>
__device__ __forceinline__ void count_tiles(const Operands& of, unsigned* ends) {
  int lane = threadIdx.x % 32;
  unsigned before = 0;
  for (int start = 0; start < of.n_groups; start += 32) {
    int group = start + lane;
    bool is_group = group < of.n_groups;
    unsigned total = is_group ? (of.starts[group + 1] - of.starts[group] + NT - 1) / NT : 0;
#pragma unroll
    for (int delta = 1; delta < 32; delta *= 2) {
      unsigned below = __shfl_up_sync(0xffffffffu, total, delta);
      if (lane >= delta) total += below;
    }
    if (is_group) ends[group] = before + total;
    before += __shfl_sync(0xffffffffu, total, 31);
  }
}

template <class T, int NT>
__device__ __forceinline__ Work divide(const Operands& of, const unsigned* ends) {
  Work work;
  work.n_row_tiles = (of.to.width() + of.to.rows() - 1) / of.to.rows();
  work.n_steps = (of.k * (int)sizeof(T) + STEP_BYTES - 1) / STEP_BYTES;
  long long n_token_tiles = of.starts ? ends[of.n_groups - 1] : of.n_groups * ((of.m + NT - 1) / NT);
  work.n_units = n_token_tiles * work.n_row_tiles * work.n_steps;
  work.n_blocks = (int)min((long long)gridDim.x, work.n_units);
  return work;
}

// The tiles of a group follow each other; those of the same rows of W are neighbours.
template <int NT>
__device__ __forceinline__ Tile locate(const Operands& of, const Work& work, const unsigned* ends, int tile) {
  Tile at;
  int before = 0, token_tiles;
  if (of.starts) {
    unsigned wanted = tile / work.n_row_tiles;
    int low = 0, high = of.n_groups - 1;
    while (low < high) {
      int middle = (low + high) / 2;
      if (ends[middle] > wanted) high = middle;
      else low = middle + 1;
    }
    at.group = low;
    before = low ? ends[low - 1] : 0;
    token_tiles = ends[low] - before;
    at.x_row = of.starts[low];
    at.n_tokens = of.starts[low + 1] - of.starts[low];
  } else {
    token_tiles = (of.m + NT - 1) / NT;
    at.group = tile / (token_tiles * work.n_row_tiles);
    before = at.group * token_tiles;
    at.x_row = 0;
    at.n_tokens = of.m;
  }
  int local = tile - before * work.n_row_tiles;
  at.first_row = local / token_tiles * of.to.rows();
  at.first_token = local % token_tiles * NT;
  return at;
}

// Row of W at row `r` of a tile, or -1. Gates and ups alternate by 8, so that a thread has both of a pair.
__device__ __forceinline__ int weight_row(const Operands& of, int first_row, int r) {
  if (!of.to.is_gated()) return first_row + r < of.to.n ? first_row + r : -1;
  int row = first_row + r / 16 * 8 + r % 8;
  return row >= of.to.n / 2 ? -1 : r / 8 % 2 ? of.to.n / 2 + row : row;
}

// ---- the ring of steps in shared memory: rows of 128 bytes, piece p of row r at p ^ (r % 8) ----

__device__ __forceinline__ char* piece_at(char* rows, int row, int piece) {
  return rows + row * STEP_BYTES + ((piece ^ (row % 8)) * 16);
}

// What a thread copies in each step: piece threadIdx.x % 8 of some rows.
template <class T, int NT>
struct Loader {
  static constexpr int W = TILE_ROWS * 8 / THREADS, X = (NT * 8 + THREADS - 1) / THREADS;
  const char *w[W], *x[X];   // null for rows that there are not
  int k_bytes;

  __device__ __forceinline__ void aim(const Operands& of, const Tile& tile) {
    int row = threadIdx.x / 8;
    const char* weight = of.weights ? reinterpret_cast<const char*>(of.weights[tile.group]) : of.weight;
    const char* tokens = of.x + (tile.group * of.x_step + (tile.x_row + tile.first_token) * of.x_stride) * sizeof(T);
    k_bytes = of.k * sizeof(T);
#pragma unroll
    for (int i = 0; i < W; i++) {
      int from = weight_row(of, tile.first_row, row + i * 32);
      w[i] = from < 0 ? nullptr : weight + (size_t)from * of.w_stride * sizeof(T);
    }
#pragma unroll
    for (int i = 0; i < X; i++) {
      int token = row + i * 32;
      bool is_token = token < NT && tile.first_token + token < tile.n_tokens;
      x[i] = is_token ? tokens + (size_t)token * of.x_stride * sizeof(T) : nullptr;
    }
  }

  __device__ __forceinline__ void copy(char* rows, int row, const char* from, int step) const {
    int piece = threadIdx.x % 8, at = step * STEP_BYTES + piece * 16;
    int valid = from ? min(max(k_bytes - at, 0), 16) : 0;
    cp_async16_zero(piece_at(rows, row, piece), valid ? from + at : nullptr, valid);
  }

  __device__ __forceinline__ void weights(char* stage, int step) const {
#pragma unroll
    for (int i = 0; i < W; i++) copy(stage, threadIdx.x / 8 + i * 32, w[i], step);
  }

  __device__ __forceinline__ void tokens(char* stage, int step) const {
#pragma unroll
    for (int i = 0; i < X; i++) {
      int token = threadIdx.x / 8 + i * 32;
      if (NT >= 32 || token < NT) copy(stage + TILE_ROWS * STEP_BYTES, token, x[i], step);
    }
  }
};

// ---- products of a step ----

template <class T, int NT>
__device__ __forceinline__ void multiply_f32(char* stage, Sums<T, NT>& sums) {
  using S = Shape<T, NT>;
  int lane = threadIdx.x % 32;
  int row = warp_row<T, NT>() + lane / 4, token = warp_token<T, NT>() + lane % 4 * 2;
  char* tokens = stage + TILE_ROWS * STEP_BYTES;
#pragma unroll 2
  for (int p = 0; p < 8; p++) {
    float4 x[S::COLS][2];
#pragma unroll
    for (int c = 0; c < S::COLS; c++) {
#pragma unroll
      for (int j = 0; j < 2; j++) x[c][j] = *reinterpret_cast<float4*>(piece_at(tokens, token + c * 8 + j, p));
    }
#pragma unroll
    for (int s = 0; s < S::SLABS; s++) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float4 w = *reinterpret_cast<float4*>(piece_at(stage, row + s * 16 + h * 8, p));
#pragma unroll
        for (int c = 0; c < S::COLS; c++) {
#pragma unroll
          for (int j = 0; j < 2; j++) {
            float& sum = sums[s][c][2 * h + j];
            sum = fmaf(w.x, x[c][j].x, fmaf(w.y, x[c][j].y, fmaf(w.z, x[c][j].z, fmaf(w.w, x[c][j].w, sum))));
          }
        }
      }
    }
  }
}

template <class T, int NT>
__device__ __forceinline__ void multiply_16(char* stage, Sums<T, NT>& sums) {
  using S = Shape<T, NT>;
  int lane = threadIdx.x % 32;
  int row = warp_row<T, NT>() + lane % 16, token = warp_token<T, NT>() + lane / 16 * 8 + lane % 8;
  char* tokens = stage + TILE_ROWS * STEP_BYTES;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    uint32_t x[S::COLS / 2][4];
#pragma unroll
    for (int c = 0; c < S::COLS / 2; c++) ldmatrix_x4(x[c], piece_at(tokens, token + c * 16, 2 * k + lane / 8 % 2));
#pragma unroll
    for (int s = 0; s < S::SLABS; s++) {
      uint32_t w[4];
      ldmatrix_x4(w, piece_at(stage, row + s * 16, 2 * k + lane / 16));
#pragma unroll
      for (int c = 0; c < S::COLS; c++) mma16816<T>(sums[s][c], w, x[c / 2][c % 2 * 2], x[c / 2][c % 2 * 2 + 1]);
    }
  }
}

template <class T, int NT>
__device__ __forceinline__ void tile_product(const Operands& of) {
  using S = Shape<T, NT>;
  DYN_SMEM(char, ring);
  unsigned* ends = reinterpret_cast<unsigned*>(ring + S::STAGES * S::STAGE_BYTES);
  gdc_trigger();
  if (of.starts) {
    gdc_wait();
    if (threadIdx.x < 32) count_tiles<NT>(of, ends);
    __syncthreads();
  }
  Work work = divide<T, NT>(of, ends);
  if ((int)blockIdx.x >= work.n_blocks) {
    gdc_wait();
    return;
  }
  long long begin = first_unit(work, blockIdx.x), end = first_unit(work, blockIdx.x + 1);
  Loader<T, NT> loader;
  int aimed = -1;
  auto aim = [&](long long unit) {
    int tile = (int)(unit / work.n_steps);
    if (tile != aimed) loader.aim(of, locate<NT>(of, work, ends, tile));
    aimed = tile;
  };
  auto stage = [&](long long unit) { return ring + (int)((unit - begin) % S::STAGES) * S::STAGE_BYTES; };
  // Weights are there before the kernels in front of this one have ended.
  for (long long unit = begin; unit < min(end, begin + S::STAGES - 1); unit++) {
    aim(unit);
    loader.weights(stage(unit), (int)(unit % work.n_steps));
  }
  gdc_wait();
  for (long long unit = begin; unit < begin + S::STAGES - 1; unit++) {
    if (unit < end) {
      aim(unit);
      loader.tokens(stage(unit), (int)(unit % work.n_steps));
    }
    cp_async_commit();
  }
  for (long long unit = begin; unit < end;) {
    int tile = (int)(unit / work.n_steps);
    long long tile_begin = (long long)tile * work.n_steps, first = unit, last = min(end, tile_begin + work.n_steps);
    Sums<T, NT> sums = {};
    for (; unit < last; unit++) {
      cp_async_wait<S::STAGES - 2>();
      __syncthreads();   // all copies of this step are there, and the step before is no longer read
      long long ahead = unit + S::STAGES - 1;
      if (ahead < end) {
        aim(ahead);
        loader.weights(stage(ahead), (int)(ahead % work.n_steps));
        loader.tokens(stage(ahead), (int)(ahead % work.n_steps));
      }
      cp_async_commit();
      if constexpr (sizeof(T) == 4) multiply_f32<T, NT>(stage(unit), sums);
      else multiply_16<T, NT>(stage(unit), sums);
    }
    bool is_whole = first == tile_begin && last == tile_begin + work.n_steps;
    __syncthreads();   // the stage of the last step is free until the next one
    auto meet = [] { __syncthreads(); };
    constexpr int N = sizeof(sums) / sizeof(float);
    if (!is_whole && !join<N>(of.with, work, tile, first != begin, &sums[0][0][0], meet)) continue;
    float* memory = reinterpret_cast<float*>(stage(unit - 1));
    write_tile<T, NT, S::PART>(of.to, locate<NT>(of, work, ends, tile), sums, warp_row<T, NT>(), warp_token<T, NT>(),
                               memory, meet);
  }
  cp_async_wait<0>();
}

}  // namespace

#define TILE(NT, NAME, T, BLOCKS)                                                                                     \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                       \
      tile_##NT##_##NAME(const char* weight, const unsigned long long* weights, int w_stride, int n, int k,           \
                         const float* bias, const unsigned long long* biases, const char* x, int x_stride,            \
                         unsigned long long x_step, const unsigned* starts, int n_groups, int m, char* out,           \
                         int out_stride, int out_step, int is_narrow, int then, float scale, int act, float a,        \
                         float b, float c, float* partial, unsigned* counters) {                                      \
    Output to{out, out_stride, out_step, is_narrow, n, bias, biases, {then, scale, {act, a, b, c}}};                  \
    tile_product<T, NT>({weight, weights, w_stride, k, x, x_stride, x_step, starts, n_groups, m, to,                  \
                         {partial, counters}});                                                                       \
  }

// BLOCKS_64: blocks of a multiprocessor, as the registers allow.
#define TILES(NAME, T, BLOCKS_64) TILE(16, NAME, T, 2) TILE(64, NAME, T, BLOCKS_64) TILE(128, NAME, T, 1)
