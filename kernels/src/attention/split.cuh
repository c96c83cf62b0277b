// Split of contexts into chunks: which blocks compute which part of a sequence, and how the parts are joined.
//
// Each block computes the same plan from the rows. A chunk is as many tiles of positions as give every
// block one item (few sequences), or about four (many sequences). The parts of a sequence are joined in the
// order of its chunks by the block that finishes last; no block waits for another.
#pragma once
#include "softmax.cuh"

// The plan of a launch, in shared memory.
struct Plan {
  int* first;   // the first chunk of each row. [n_rows + 1]
  int chunk;    // tiles in a chunk
  int n_items;  // chunks times parts
};

// Positions of a tile and the most query heads of an item, as a kernel has them.
struct Sizes {
  int tile, heads;
};

// Items of a chunk: heads of the cache times parts of their group.
__device__ __forceinline__ int parts_of(const Operands& a, int heads) {
  int group = a.n_heads / a.n_kv_heads;
  return a.n_kv_heads * ((group + heads - 1) / heads);
}

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

// Called by one warp; returns the tiles of a chunk.
__device__ __forceinline__ int make_plan(const Operands& a, Sizes sizes, int* first) {
  int lane = threadIdx.x % 32, grid = gridDim.x, tile = sizes.tile, parts = parts_of(a, sizes.heads);
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
  if (lane == 0) first[a.n_rows] = before;
  return chunk;
}

// The plan of a block; `first` is shared memory for its list.
__device__ __forceinline__ Plan plan_of(const Operands& a, Sizes sizes, int* first) {
  __shared__ int chunk;
  if (threadIdx.x < 32) {
    int tiles = make_plan(a, sizes, first);
    if (threadIdx.x == 0) chunk = tiles;
  }
  __syncthreads();
  return {first, chunk, first[a.n_rows] * parts_of(a, sizes.heads)};
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

// An item of work.
struct Item {
  Row row;
  int row_idx, chunk_idx, n_chunks;
  int kv_head, first_head, n_heads;  // query heads of the item
  int start, end;                    // positions
  int query;                         // position of the query
};

__device__ __forceinline__ Item item_of(const Operands& a, const Plan& plan, Sizes sizes, int idx) {
  int parts = parts_of(a, sizes.heads), group = a.n_heads / a.n_kv_heads, per_item = min(group, sizes.heads);
  int chunk = idx / parts, part = idx % parts;
  Item item;
  item.row_idx = row_of_chunk(plan.first, a.n_rows, chunk);
  item.row = a.rows[item.row_idx];
  item.n_chunks = plan.first[item.row_idx + 1] - plan.first[item.row_idx];
  item.chunk_idx = chunk - plan.first[item.row_idx];
  item.kv_head = part % a.n_kv_heads;
  int first_of_group = part / a.n_kv_heads * per_item;
  item.first_head = item.kv_head * group + first_of_group;
  item.n_heads = min(per_item, group - first_of_group);
  Tiles tiles = tiles_of(a, item.row, sizes.tile);
  item.start = tiles.start + item.chunk_idx * plan.chunk * sizes.tile;
  item.end = min(item.start + plan.chunk * sizes.tile, item.row.context_len);
  item.query = item.row.context_len - 1;
  return item;
}

// Where the parts of results go, and how many of a row have arrived.
struct Partials {
  float* sums;         // weighted values. [n_items, heads, value_dim]
  float2* stats;       // largest score and total weight. [n_items, heads]
  unsigned* arrivals;  // [n_rows, parts]; 0 before and after a launch
  int parts, heads;

  __device__ __forceinline__ float* sums_of(const Operands& a, int idx) const {
    return sums + (size_t)idx * heads * a.value_dim;
  }
  __device__ __forceinline__ float2* stats_of(int idx) const { return stats + (size_t)idx * heads; }
};

__device__ __forceinline__ Partials partials_of(const Operands& a, const Plan& plan, Sizes sizes, float* memory,
                                                unsigned* arrivals) {
  int heads = min(a.n_heads / a.n_kv_heads, sizes.heads);
  size_t n_sums = (size_t)plan.n_items * heads * a.value_dim;
  float2* stats = (float2*)(memory + (n_sums + 1) / 2 * 2);
  return {memory, stats, arrivals, parts_of(a, sizes.heads), heads};
}

// Joins N columns of a head over the chunks of a row, in their order.
template <int N>
__device__ __forceinline__ void join_columns(const Item& item, float sink, const float* sums, size_t sums_step,
                                             const float2* stats, size_t stats_step, float* out) {
  float largest = sink;
#pragma unroll 8
  for (int i = 0; i < item.n_chunks; i++) largest = fmaxf(largest, __ldcg(stats + i * stats_step).x);
  float total = exp2f(sink - largest), joined[N] = {};
#pragma unroll 8
  for (int i = 0; i < item.n_chunks; i++) {
    float2 chunk = __ldcg(stats + i * stats_step);
    float factor = exp2f(chunk.x - largest), own[N];
    if (N == 4) {
      float4 four = __ldcg((const float4*)(sums + i * sums_step));
      own[0] = four.x, own[1 % N] = four.y, own[2 % N] = four.z, own[3 % N] = four.w;
    } else {
      own[0] = __ldcg(sums + i * sums_step);
    }
    total += chunk.y * factor;
#pragma unroll
    for (int e = 0; e < N; e++) joined[e] = fmaf(own[e], factor, joined[e]);
  }
#pragma unroll
  for (int e = 0; e < N; e++) out[e] = joined[e] / total;
}

template <int N, int THREADS>
__device__ __forceinline__ void join_chunks(const Operands& a, const Item& item, const Partials& partials, int idx) {
  float* out = a.out + ((size_t)item.row.query_start * a.n_heads + item.first_head) * a.value_dim;
  int first = idx - item.chunk_idx * partials.parts, n_pieces = a.value_dim / N;
  size_t stats_step = (size_t)partials.parts * partials.heads, sums_step = stats_step * a.value_dim;
  for (int i = threadIdx.x; i < item.n_heads * n_pieces; i += THREADS) {
    int r = i / n_pieces, at = r * a.value_dim + i % n_pieces * N;
    join_columns<N>(item, sink_of(a, item.first_head + r), partials.sums_of(a, first) + at, sums_step,
                    partials.stats_of(first) + r, stats_step, out + at);
  }
}

// The threads of a block that compute, and how they meet.
template <int N> struct WholeBlock {
  static constexpr int THREADS = N;
  static __device__ __forceinline__ void sync() { __syncthreads(); }
};
template <int N> struct FirstThreads {
  static constexpr int THREADS = N;
  static __device__ __forceinline__ void sync() { bar_sync(1, N); }
};

// Called by all threads that compute when an item's part is written: the block that finishes the last chunk of a row joins them,
// and resets the counter for the next launch.
template <class Threads>
__device__ __forceinline__ void arrive(const Operands& a, const Item& item, const Partials& partials, int idx) {
  __shared__ bool is_last;
  __threadfence();
  Threads::sync();
  if (threadIdx.x == 0) {
    unsigned* arrivals = partials.arrivals + item.row_idx * partials.parts + idx % partials.parts;
    is_last = atomicAdd(arrivals, 1u) == (unsigned)item.n_chunks - 1;
    if (is_last) *arrivals = 0;
  }
  Threads::sync();
  if (!is_last) return;
  __threadfence();
  if (a.value_dim % 4 == 0)
    join_chunks<4, Threads::THREADS>(a, item, partials, idx);
  else
    join_chunks<1, Threads::THREADS>(a, item, partials, idx);
}

template <int THREADS> __device__ __forceinline__ void store_zeros(const Operands& a, const Item& item) {
  float* out = a.out + ((size_t)item.row.query_start * a.n_heads + item.first_head) * a.value_dim;
  for (int i = threadIdx.x; i < item.n_heads * a.value_dim; i += THREADS) out[i] = 0.0f;
}
