// Attention over the compressed cache of multi-head latent attention (DeepSeek-V2 2024, section 2.1), 16-bit:
// keys of 9 groups whose first 8 are the values, one head of the cache for all query heads.
//
// Sums of 16 rows would fill a warp's registers, so the warps share the columns: each has 64 of them for all
// rows. Scores and weights go through shared memory. Rows are pairs of a token and a head, so the same code
// serves sequences with one new token (split contexts, `split.cuh`) and with several.
#pragma once
#include "query_tile.cuh"
#include "split.cuh"

template <int ROW_TILES> struct LatentShape {
  static constexpr int ROWS = ROW_TILES * 16;
  static constexpr int WARPS = 8;
  static constexpr int THREADS = WARPS * 32;
  static constexpr int TILE = 32;                      // positions
  static constexpr int GROUPS = 9;                     // of a key; a warp sums the columns of one of the first 8
  static constexpr int STEPS = GROUPS * 4;
  static constexpr int PARTS = ROW_TILES == 1 ? 2 : 1;  // of the products of queries and keys
  static constexpr int QUERY_BYTES = GROUPS * ROWS * GROUP_BYTES;
  static constexpr int STAGE_BYTES = GROUPS * TILE * GROUP_BYTES;
  static constexpr int STAGES = 2;
  static constexpr int SCORE_STRIDE = TILE + 8;        // floats; spreads rows over the banks
  static constexpr int SCORE_BYTES = PARTS * ROWS * SCORE_STRIDE * 4;
  static constexpr int WEIGHT_STRIDE = TILE * 2 + 16;  // bytes; the same
  static constexpr int WEIGHT_BYTES = ROWS * WEIGHT_STRIDE;
  static constexpr int SHARED_BYTES = QUERY_BYTES + STAGES * STAGE_BYTES + SCORE_BYTES + WEIGHT_BYTES;
};

struct LatentShared {
  char *queries, *ring, *weights;
  float* scores;
  float *shrink, *largest, *total;  // [ROWS]
};

template <int ROW_TILES> __device__ __forceinline__ LatentShared latent_shared(char* memory) {
  using S = LatentShape<ROW_TILES>;
  __shared__ float shrink[S::ROWS], largest[S::ROWS], total[S::ROWS];
  char* ring = memory + S::QUERY_BYTES;
  char* scores = ring + S::STAGES * S::STAGE_BYTES;
  return {memory, ring, scores + S::SCORE_BYTES, (float*)scores, shrink, largest, total};
}

// This warp's part of the products of all rows and the tile's keys: 16 rows, 16 positions, some of the columns.
template <typename T, int ROW_TILES>
__device__ __forceinline__ void score_latent(const LatentShared& s, const char* stage) {
  using S = LatentShape<ROW_TILES>;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, half = warp % 2, rows = warp / 2 % ROW_TILES;
  int part = warp / (2 * ROW_TILES);
  if (part >= S::PARTS) return;
  int row = rows * 16 + lane % 16, key = half * 16 + lane % 8 + lane / 16 * 8;
  float sums[2][4] = {};
#pragma unroll 4
  for (int i = 0; i < S::STEPS / S::PARTS; i++) {
    int step = part * (S::STEPS / S::PARTS) + i;
    int q_piece = step % 4 * 2 + lane / 16, piece = step % 4 * 2 + lane / 8 % 2;
    unsigned q[4], k[4];
    ldmatrix_x4(q, s.queries + (step / 4 * S::ROWS + row) * GROUP_BYTES + ((q_piece ^ (row % 8)) << 4));
    ldmatrix_x4(k, stage + (step / 4 * S::TILE + key) * GROUP_BYTES + ((piece ^ (key % 8)) << 4));
    mma16816<T>(sums[0], q, k[0], k[1]);
    mma16816<T>(sums[1], q, k[2], k[3]);
  }
  float* to = s.scores + (part * S::ROWS + rows * 16 + lane / 4) * S::SCORE_STRIDE + half * 16 + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < 2; j++) {
    *(float2*)(to + j * 8) = make_float2(sums[j][0], sums[j][1]);
    *(float2*)(to + 8 * S::SCORE_STRIDE + j * 8) = make_float2(sums[j][2], sums[j][3]);
  }
}

// The softmax of one row's tile: four neighbouring threads have a row, eight positions each.
struct LatentSoftmax {
  float largest, total;
};

template <typename T, int ROW_TILES>
__device__ __forceinline__ void weigh_latent(const Operands& a, const QueryTile& tile, int first,
                                             const LatentShared& s, LatentSoftmax& softmax) {
  using S = LatentShape<ROW_TILES>;
  int r = threadIdx.x / 4, at = threadIdx.x % 4 * 8, idx = tile.first + min(r, tile.n - 1);
  int query = tile.row.context_len - tile.row.query_len + idx / tile.group;
  int head = tile.kv_head * tile.group + idx % tile.group;
  Range range = seen(a, query, tile.row.context_len);
  float scores[8], now = softmax.largest;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float score = 0.0f;
#pragma unroll
    for (int part = 0; part < S::PARTS; part++) score += s.scores[(part * S::ROWS + r) * S::SCORE_STRIDE + at + i];
    int position = first + at + i;
    score *= a.scale;
    if (is_shaped(a)) score = shaped(a, score, head, position - query);
    scores[i] = position >= range.start && position < min(range.end, tile.end) ? score * LOG2_E : -INFINITY;
    now = fmaxf(now, scores[i]);
  }
  now = quad_max(now);
  float base = now == -INFINITY ? 0.0f : now, shrink = exp2f(softmax.largest - base);
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    scores[i] = exp2f(scores[i] - base);
    total += scores[i];
  }
  softmax.total = softmax.total * shrink + quad_sum(total);
  softmax.largest = now;
  uint4 packed = {pack2<T>(scores[0], scores[1]), pack2<T>(scores[2], scores[3]), pack2<T>(scores[4], scores[5]),
                  pack2<T>(scores[6], scores[7])};
  *(uint4*)(s.weights + r * S::WEIGHT_STRIDE + at * 2) = packed;
  if (at == 0) s.shrink[r] = shrink;
}

// Adds the tile's weighted values to the sums of this warp's 64 columns, which shrink first.
template <typename T, int ROW_TILES>
__device__ __forceinline__ void sum_latent(const LatentShared& s, const char* stage,
                                           float (&sums)[ROW_TILES][8][4]) {
  using S = LatentShape<ROW_TILES>;
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int m = 0; m < ROW_TILES; m++) {
#pragma unroll
    for (int x = 0; x < 2; x++) {
      float shrink = s.shrink[m * 16 + lane / 4 + x * 8];
#pragma unroll
      for (int n = 0; n < 8; n++) {
        sums[m][n][2 * x] *= shrink;
        sums[m][n][2 * x + 1] *= shrink;
      }
    }
  }
#pragma unroll
  for (int step = 0; step < S::TILE / 16; step++) {
    unsigned weights[ROW_TILES][4];
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
      ldmatrix_x4(weights[m], s.weights + (m * 16 + lane % 16) * S::WEIGHT_STRIDE + (step * 2 + lane / 16) * 16);
    int r = step * 16 + lane % 16;
#pragma unroll
    for (int n = 0; n < 4; n++) {
      unsigned values[4];
      ldmatrix_x4_trans(values, stage + (warp * S::TILE + r) * GROUP_BYTES + (((n * 2 + lane / 16) ^ (r % 8)) << 4));
#pragma unroll
      for (int m = 0; m < ROW_TILES; m++) {
        mma16816<T>(sums[m][2 * n], weights[m], values[0], values[1]);
        mma16816<T>(sums[m][2 * n + 1], weights[m], values[2], values[3]);
      }
    }
  }
}

// The weighted values of a tile of queries; the rows' largest scores and totals are in shared memory afterwards.
template <typename T, int ROW_TILES>
__device__ __forceinline__ void compute_latent(const Operands& a, const QueryTile& tile, const LatentShared& s,
                                               float (&sums)[ROW_TILES][8][4]) {
  using S = LatentShape<ROW_TILES>;
  LatentSoftmax softmax = {-INFINITY, 0.0f};
#pragma unroll
  for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
    for (int n = 0; n < 8; n++) sums[m][n][0] = sums[m][n][1] = sums[m][n][2] = sums[m][n][3] = 0.0f;
  bool has_row = threadIdx.x < S::ROWS * 4;
  int first = tile.start / S::TILE * S::TILE;
  load_positions<S::TILE, S::GROUPS * 8, S::THREADS>(a, tile, first, 0, s.ring);
  load_query_tile<T, S::GROUPS * 8, S::ROWS, S::THREADS>(a, tile, s.queries);
  for (int i = 0; first < tile.end; i++, first += S::TILE) {
    const char* stage = s.ring + i % S::STAGES * S::STAGE_BYTES;
    cp_async_wait<0>();
    __syncthreads();  // the tile is there, and all have left the other one
    if (first + S::TILE < tile.end)
      load_positions<S::TILE, S::GROUPS * 8, S::THREADS>(a, tile, first + S::TILE, 0,
                                                         s.ring + (i + 1) % S::STAGES * S::STAGE_BYTES);
    score_latent<T, ROW_TILES>(s, stage);
    __syncthreads();  // the scores are there
    if (has_row) weigh_latent<T, ROW_TILES>(a, tile, first, s, softmax);
    __syncthreads();  // the weights are there
    sum_latent<T, ROW_TILES>(s, stage, sums);
  }
  if (has_row && threadIdx.x % 4 == 0) {
    s.largest[threadIdx.x / 4] = softmax.largest;
    s.total[threadIdx.x / 4] = softmax.total;
  }
  __syncthreads();  // the statistics are there, and all have left the queries
}

// Writes the rows of a tile: finished ones to `out` (idx -1), or what has to be joined as item `idx` of the partials.
template <int ROW_TILES>
__device__ __forceinline__ void store_latent(const Operands& a, const QueryTile& tile, const LatentShared& s,
                                             const float (&sums)[ROW_TILES][8][4], const Partials& partials, int idx) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int m = 0; m < ROW_TILES; m++) {
#pragma unroll
    for (int x = 0; x < 2; x++) {
      int r = m * 16 + lane / 4 + x * 8;
      if (r >= tile.n) continue;
      int pair = tile.first + r, head = tile.kv_head * tile.group + pair % tile.group;
      float* to = a.out + ((size_t)(tile.row.query_start + pair / tile.group) * a.n_heads + head) * a.value_dim;
      float factor = 1.0f;
      if (idx < 0) {
        factor = finish_factor(s.largest[r], s.total[r], sink_of(a, head));
      } else {
        to = partials.sums_of(a, idx) + (size_t)r * a.value_dim;
        if (warp == 0 && lane % 4 == 0) partials.stats_of(idx)[r] = make_float2(s.largest[r], s.total[r]);
      }
#pragma unroll
      for (int n = 0; n < 8; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
          int column = warp * 64 + n * 8 + lane % 4 * 2 + e;
          if (column < a.value_dim) to[column] = sums[m][n][2 * x + e] * factor;
        }
      }
    }
  }
}

// Sequences with one new token.
template <typename T, int ROW_TILES>
__device__ __forceinline__ void attend_latent_decode(const Operands& a, float* sums_of_chunks, unsigned* arrivals) {
  using S = LatentShape<ROW_TILES>;
  constexpr Sizes SIZES = {S::TILE, S::ROWS};
  DYN_SMEM(char, memory);
  gdc_trigger();
  gdc_wait();
  LatentShared s = latent_shared<ROW_TILES>(memory);
  Plan plan = plan_of(a, SIZES, (int*)(memory + S::SHARED_BYTES));
  Partials partials = partials_of(a, plan, SIZES, sums_of_chunks, arrivals);
  for (int idx = blockIdx.x; idx < plan.n_items; idx += gridDim.x) {
    Item item = item_of(a, plan, SIZES, idx);
    if (item.row.query_len == 0) {
      store_zeros<S::THREADS>(a, item);
      continue;
    }
    int group = a.n_heads / a.n_kv_heads, start = max(item.start, seen(a, item.query, item.row.context_len).start);
    QueryTile tile = {item.row, item.kv_head, group, item.first_head - item.kv_head * group, item.n_heads,
                      start, item.end};
    float sums[ROW_TILES][8][4];
    compute_latent<T, ROW_TILES>(a, tile, s, sums);
    store_latent<ROW_TILES>(a, tile, s, sums, partials, item.n_chunks > 1 ? idx : -1);
    if (item.n_chunks > 1) arrive<WholeBlock<S::THREADS>>(a, item, partials, idx);
    __syncthreads();  // all have left the statistics
  }
}

// Sequences with several new tokens.
template <typename T, int ROW_TILES> __device__ __forceinline__ void attend_latent_prefill(const Operands& a) {
  DYN_SMEM(char, memory);
  gdc_trigger();
  gdc_wait();
  LatentShared s = latent_shared<ROW_TILES>(memory);
  QueryTile tile = tile_of<LatentShape<ROW_TILES>::ROWS>(a, gridDim.x - 1 - blockIdx.x);
  if (tile.n == 0) return;
  float sums[ROW_TILES][8][4];
  compute_latent<T, ROW_TILES>(a, tile, s, sums);
  store_latent<ROW_TILES>(a, tile, s, sums, Partials(), -1);
}
