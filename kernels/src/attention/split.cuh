// Split of contexts into chunks: which blocks compute which part of a sequence, and how the parts are joined.
//
// Each block computes the same plan from the rows. A chunk is as many tiles of positions as give every
// block one item (few sequences), or about four (many sequences). The parts of a sequence are joined in the
// order of its chunks by the block that finishes last; no block waits for another.
#pragma once
#include "operands.cuh"

// The plan of a launch, in shared memory.
struct Plan {
  int* first;   // the first chunk of each row. [n_rows + 1]
  int chunk;    // tiles in a chunk
  int n_items;  // chunks times parts
};

// The tiles of a row: aligned to multiples of the tile, so that what a tile holds depends on the position only.
struct Tiles {
  int start;  // position of the first tile
  int n;
};

__device__ __forceinline__ Tiles tiles_of(const Operands& a, const Row& row, int tile) {
  if (row.query_len > 1) return {0, 0};  // prefill's
  if (row.query_len == 0) return {0, 1};
  Range range = seen(a, row.context_len - 1, row.context_len);
  int start = range.start / tile * tile;
  return {start, (range.end - start + tile - 1) / tile};
}

__device__ __forceinline__ int chunks_of(const Operands& a, int tile, int chunk) {
  int n = 0;
  for (int r = threadIdx.x % 32; r < a.n_rows; r += 32) n += (tiles_of(a, a.rows[r], tile).n + chunk - 1) / chunk;
  return warp_sum(n);
}

// Called by one warp. `parts` items make up a chunk.
__device__ __forceinline__ void make_plan(const Operands& a, int tile, int parts, int* first, int* chunk_out) {
  int lane = threadIdx.x % 32, grid = gridDim.x;
  int n_tiles = chunks_of(a, tile, 1), chunk;
  if (a.n_rows * parts <= grid) {
    chunk = max(1, (n_tiles * parts + grid - 1) / grid);
    while (chunks_of(a, tile, chunk) * parts > grid) chunk += max(1, chunk / 8);
  } else {
    chunk = max(1, (n_tiles * parts + 4 * grid - 1) / (4 * grid));
  }
  int before = 0;
  for (int base = 0; base < a.n_rows; base += 32) {
    int r = base + lane;
    int n = r < a.n_rows ? (tiles_of(a, a.rows[r], tile).n + chunk - 1) / chunk : 0;
    int through = warp_scan(n);
    if (r < a.n_rows) first[r] = before + through - n;
    before += warp_sum(n);
  }
  if (lane == 0) {
    first[a.n_rows] = before;
    *chunk_out = chunk;
  }
}

// The row of a chunk.
__device__ __forceinline__ int row_of_chunk(const int* first, int n_rows, int chunk) {
  int low = 0, high = n_rows;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (first[middle] <= chunk) low = middle; else high = middle;
  }
  return low;
}
