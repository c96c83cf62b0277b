// y = then(W . x + bias) in tiles of 128 rows of W and NT tokens. Blocks take equal shares of the steps of all tiles; sums of
// a tile that several blocks share are added by the last of them, in the order of the columns.
#pragma once
#include "../cuda/kernel.cuh"
#include "then.cuh"

namespace {

constexpr int TILE_ROWS = 128;
constexpr int STEP_BYTES = 128;   // of each row in a step: 8 pieces of 16
constexpr int THREADS = 256;

struct Operands {
  const char* weight;
  const unsigned long long* weights;   // address of each group's matrix, or null
  int w_stride, n, k;                  // in elements
  const float* bias;
  const unsigned long long* biases;
  const char* x;
  int x_stride;
  unsigned long long x_step;   // from one head to the next
  const unsigned* starts;      // first row of each expert, or null
  int n_groups, m;
  char* out;
  int out_stride, out_step, is_narrow;
  Then then;
  float* partial;       // [blocks, 2, TILE_ROWS * NT]
  unsigned* counters;   // [tiles]
};

template <class T, int NT>
struct Shape {
  static constexpr int STAGES = NT == 128 ? 3 : 4;
  static constexpr int STAGE_BYTES = (TILE_ROWS + NT) * STEP_BYTES;
  static constexpr int WARPS_T = NT == 16 ? 1 : NT == 64 ? 2 : 4;   // along the tokens
  static constexpr int WARPS_R = THREADS / 32 / WARPS_T;            // along the rows
  static constexpr int SLABS = TILE_ROWS / 16 / WARPS_R;            // of 16 rows, of a warp
  static constexpr int COLS = NT / 8 / WARPS_T;                     // of 8 tokens, of a warp
  // Tokens that are written at a time: their sums fit in one stage.
  static constexpr int PART = NT < 32 ? NT : 32;
};

template <class T, int NT>
using Sums = float[Shape<T, NT>::SLABS][Shape<T, NT>::COLS][4];

// ---- how the work is divided ----

struct Tile {
  int group, first_row, first_token, n_tokens;   // row of the output; tokens of the group, counted from its first
  size_t x_row;                                  // row of the group's first token
};

struct Work {
  int n_row_tiles, n_steps;
  long long n_units;
  int n_blocks;
};

// Rows of the output in a tile: with gates and ups, half of the tile's rows are each.
__device__ __forceinline__ int rows_out(const Operands& of) { return of.then.kind == THEN_GATED ? TILE_ROWS / 2 : TILE_ROWS; }
__device__ __forceinline__ int n_out(const Operands& of) { return of.then.kind == THEN_GATED ? of.n / 2 : of.n; }

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
  work.n_row_tiles = (n_out(of) + rows_out(of) - 1) / rows_out(of);
  work.n_steps = (of.k * (int)sizeof(T) + STEP_BYTES - 1) / STEP_BYTES;
  long long n_token_tiles = of.starts ? ends[of.n_groups - 1] : of.n_groups * ((of.m + NT - 1) / NT);
  work.n_units = n_token_tiles * work.n_row_tiles * work.n_steps;
  work.n_blocks = (int)min((long long)gridDim.x, work.n_units);
  return work;
}

// First unit of a block.
__device__ __forceinline__ long long first_unit(const Work& work, long long block) {
  return work.n_units * block / work.n_blocks;
}

// The block that has a unit.
__device__ __forceinline__ int block_of(const Work& work, long long unit) {
  return (int)(((unit + 1) * work.n_blocks - 1) / work.n_units);
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
  at.first_row = local / token_tiles * rows_out(of);
  at.first_token = local % token_tiles * NT;
  return at;
}

// Row of W at row `r` of a tile, or -1. Gates and ups alternate by 8, so that a thread has both of a pair.
__device__ __forceinline__ int weight_row(const Operands& of, int first_row, int r) {
  if (of.then.kind != THEN_GATED) return first_row + r < of.n ? first_row + r : -1;
  int row = first_row + r / 16 * 8 + r % 8;
  return row >= of.n / 2 ? -1 : r / 8 % 2 ? of.n / 2 + row : row;
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
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int row = warp / S::WARPS_T * S::SLABS * 16 + lane / 4, token = warp % S::WARPS_T * S::COLS * 8 + lane % 4 * 2;
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
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int row = warp / S::WARPS_T * S::SLABS * 16 + lane % 16;
  int token = warp % S::WARPS_T * S::COLS * 8 + lane / 16 * 8 + lane % 8;
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

// ---- the end of a tile ----

// Adds the sums of all blocks that share a tile; false for all but the last of these.
template <class T, int NT>
__device__ __forceinline__ bool join(const Operands& of, const Work& work, int tile, bool is_second, Sums<T, NT>& sums) {
  constexpr int N = sizeof(sums) / sizeof(float);
  __shared__ bool is_last;
  float* flat = &sums[0][0][0];
  float* own = of.partial + (2 * (size_t)blockIdx.x + is_second) * TILE_ROWS * NT;
#pragma unroll
  for (int i = 0; i < N; i++) __stcg(own + i * THREADS + threadIdx.x, flat[i]);
  __threadfence();
  __syncthreads();
  long long unit = (long long)tile * work.n_steps;
  int first = block_of(work, unit), last = block_of(work, unit + work.n_steps - 1);
  if (threadIdx.x == 0) {
    is_last = atomicAdd(&of.counters[tile], 1u) == (unsigned)(last - first);
    if (is_last) of.counters[tile] = 0;
  }
  __syncthreads();
  if (!is_last) return false;
  __threadfence();
#pragma unroll
  for (int i = 0; i < N; i++) flat[i] = 0.0f;
  for (int block = first; block <= last; block++) {
    bool is_its_second = first_unit(work, block) < unit;
    const float* part = of.partial + (2 * (size_t)block + is_its_second) * TILE_ROWS * NT;
#pragma unroll
    for (int i = 0; i < N; i++) flat[i] += __ldcg(part + i * THREADS + threadIdx.x);
  }
  return true;
}

// Writes the outputs of a tile by way of shared memory, so that neighbours in a row are written together.
template <class T, int NT>
__device__ __forceinline__ void finish(const Operands& of, const Tile& tile, const Sums<T, NT>& sums, float* memory) {
  using S = Shape<T, NT>;
  constexpr int STRIDE = TILE_ROWS + 4;
  static_assert(S::PART * STRIDE * sizeof(float) <= S::STAGE_BYTES, "the sums fit in a stage");
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int row = warp / S::WARPS_T * S::SLABS * 16 + lane / 4, token = warp % S::WARPS_T * S::COLS * 8 + lane % 4 * 2;
  int n_rows = rows_out(of), is_gated = of.then.kind == THEN_GATED;
  const float* bias = of.biases ? reinterpret_cast<const float*>(of.biases[tile.group]) : of.bias;
  size_t base = (tile.x_row + tile.first_token) * of.out_stride + (size_t)tile.group * of.out_step;
#pragma unroll 1
  for (int part = 0; part < NT && tile.first_token + part < tile.n_tokens; part += S::PART) {
#pragma unroll
    for (int c = 0; c < S::COLS; c++) {
      int at = token + c * 8 - part;
      if (at < 0 || at >= S::PART) continue;
#pragma unroll
      for (int s = 0; s < S::SLABS; s++) {
#pragma unroll
        for (int i = 0; i < 4; i++) memory[(at + i % 2) * STRIDE + row + s * 16 + i / 2 * 8] = sums[s][c][i];
      }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < S::PART * n_rows; i += THREADS) {
      int r = i % n_rows, t = i / n_rows, out_row = tile.first_row + r;
      if (tile.first_token + part + t >= tile.n_tokens || out_row >= n_out(of)) continue;
      const float* at = memory + t * STRIDE + (is_gated ? r / 8 * 16 + r % 8 : r);
      float product = at[0], up = is_gated ? at[8] : 0.0f;
      if (bias) product += bias[out_row];
      if (bias && is_gated) up += bias[of.n / 2 + out_row];
      size_t to = base + (size_t)(part + t) * of.out_stride + out_row;
      if (of.is_narrow) write_product(of.then, reinterpret_cast<T*>(of.out) + to, product, up);
      else write_product(of.then, reinterpret_cast<float*>(of.out) + to, product, up);
    }
    __syncthreads();
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
    if (!is_whole && !join<T, NT>(of, work, tile, first != begin, sums)) continue;
    finish<T, NT>(of, locate<NT>(of, work, ends, tile), sums, reinterpret_cast<float*>(stage(unit - 1)));
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
    tile_product<T, NT>({weight, weights, w_stride, n, k, bias, biases, x, x_stride, x_step, starts, n_groups, m,     \
                         out, out_stride, out_step, is_narrow, {then, scale, {act, a, b, c}}, partial, counters});    \
  }

#define TILES(NAME, T) TILE(16, NAME, T, 2) TILE(64, NAME, T, 2) TILE(128, NAME, T, 1)
