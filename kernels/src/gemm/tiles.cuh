// What products in tiles share: blocks take equal shares of the steps of all tiles; sums of a tile that several blocks share
// are added by the last of them, in the order of the columns.
#pragma once
#include "../cuda/kernel.cuh"
#include "then.cuh"

namespace {

constexpr int TILE_ROWS = 128;
constexpr int STEP_BYTES = 128;   // of each row in a step
constexpr int THREADS = 256;      // that compute
constexpr int N_WARPS = THREADS / 32;

// Part of the outputs that a block has computed.
struct Tile {
  int group, first_row, first_token, n_tokens;   // row of W; tokens of the group, counted from its first
  size_t x_row;                                  // row of the group's first token
};

// ---- how the work is divided ----

struct Work {
  int n_row_tiles, n_steps;
  long long n_units;   // steps of all tiles
  int n_blocks;
};

// First unit of a block.
__device__ __forceinline__ long long first_unit(const Work& work, long long block) {
  return work.n_units * block / work.n_blocks;
}

// The block that has a unit.
__device__ __forceinline__ int block_of(const Work& work, long long unit) {
  return (int)(((unit + 1) * work.n_blocks - 1) / work.n_units);
}

struct Sharing {
  float* partial;       // [blocks, 2, N * THREADS]
  unsigned* counters;   // [tiles]; zero between two kernels
};

// Adds up the N sums of each thread over all blocks that share a tile; false for all but the last of these. `meet` is a barrier
// of the threads that compute. `is_second`: the block has begun with another tile.
template <int N, class Meet>
__device__ __forceinline__ bool join(const Sharing& with, const Work& work, int tile, bool is_second, float* sums, Meet meet) {
  __shared__ int is_last;
  float* own = with.partial + (2 * (size_t)blockIdx.x + is_second) * N * THREADS;
#pragma unroll
  for (int i = 0; i < N; i++) __stcg(own + i * THREADS + threadIdx.x, sums[i]);
  __threadfence();
  meet();
  long long unit = (long long)tile * work.n_steps;
  int first = block_of(work, unit), last = block_of(work, unit + work.n_steps - 1);
  if (threadIdx.x == 0) {
    is_last = atomicAdd(&with.counters[tile], 1u) == (unsigned)(last - first);
    if (is_last) with.counters[tile] = 0;
  }
  meet();
  if (!is_last) return false;
  __threadfence();
#pragma unroll
  for (int i = 0; i < N; i++) sums[i] = 0.0f;
  for (int block = first; block <= last; block++) {
    bool is_its_second = first_unit(work, block) < unit;
    const float* part = with.partial + (2 * (size_t)block + is_its_second) * N * THREADS;
#pragma unroll
    for (int i = 0; i < N; i++) sums[i] += __ldcg(part + i * THREADS + threadIdx.x);
  }
  return true;
}

// ---- outputs ----

struct Output {
  char* out;
  int row_stride, step, is_narrow;   // elements; `step` from one head to the next
  int n;                             // rows of W
  const float* bias;
  const unsigned long long* biases;   // of each group, or null
  Then then;

  __device__ __forceinline__ bool is_gated() const { return then.kind == THEN_GATED; }
  __device__ __forceinline__ int width() const { return is_gated() ? n / 2 : n; }
  // Of a tile: with gates and ups, half of the tile's rows are each.
  __device__ __forceinline__ int rows() const { return is_gated() ? TILE_ROWS / 2 : TILE_ROWS; }
};

// Floats from one token to the next in the memory of `write_tile`.
constexpr int TOKEN_STRIDE = TILE_ROWS + 4;

// Writes the outputs of a tile by way of shared memory [PART, TOKEN_STRIDE], so that neighbours in a row are written together.
// A thread has sums[s][c] as mma16816 leaves them, for rows from `row + 16 s` and tokens from `token + 8 c` on.
template <class T, int NT, int PART, int SLABS, int COLS, class Meet>
__device__ __forceinline__ void write_tile(const Output& to, const Tile& tile, const float (&sums)[SLABS][COLS][4], int row,
                                           int token, float* memory, Meet meet) {
  int n_rows = to.rows(), lane = threadIdx.x % 32;
  const float* bias = to.biases ? reinterpret_cast<const float*>(to.biases[tile.group]) : to.bias;
  size_t base = (tile.x_row + tile.first_token) * to.row_stride + (size_t)tile.group * to.step;
  row += lane / 4;
  token += lane % 4 * 2;
#pragma unroll 1
  for (int part = 0; part < NT && tile.first_token + part < tile.n_tokens; part += PART) {
#pragma unroll
    for (int c = 0; c < COLS; c++) {
      int at = token + c * 8 - part;
      if (at < 0 || at >= PART) continue;
#pragma unroll
      for (int s = 0; s < SLABS; s++) {
#pragma unroll
        for (int i = 0; i < 4; i++) memory[(at + i % 2) * TOKEN_STRIDE + row + s * 16 + i / 2 * 8] = sums[s][c][i];
      }
    }
    meet();
    for (int i = threadIdx.x; i < PART * n_rows; i += THREADS) {
      int r = i % n_rows, t = i / n_rows, out_row = tile.first_row + r;
      if (tile.first_token + part + t >= tile.n_tokens || out_row >= to.width()) continue;
      const float* at = memory + t * TOKEN_STRIDE + (to.is_gated() ? r / 8 * 16 + r % 8 : r);
      float product = at[0], up = to.is_gated() ? at[8] : 0.0f;
      if (bias) product += bias[out_row];
      if (bias && to.is_gated()) up += bias[to.n / 2 + out_row];
      size_t place = base + (size_t)(part + t) * to.row_stride + out_row;
      if (to.is_narrow) write_product(to.then, reinterpret_cast<T*>(to.out) + place, product, up);
      else write_product(to.then, reinterpret_cast<float*>(to.out) + place, product, up);
    }
    meet();
  }
}

}  // namespace
