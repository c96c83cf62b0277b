// Attention of sequences with several new tokens, over 16-bit pages: tiles of queries against tiles of 64
// positions (FlashAttention-2, Dao 2023).
//
// A tile's rows are pairs of a token and one of the query heads that share a head of the cache, token by
// token, so keys and values are read once for all of them. One buffer of keys and one of values: keys
// arrive while the values before them are used, and the other way round. Tiles of positions start at multiples of 64,
// so a token's result does not depend on the chunk it arrives in.
#pragma once
#include "softmax.cuh"

template <int DIM, int ROWS> struct PrefillShape {
  static constexpr int WARPS = ROWS / 16;
  static constexpr int THREADS = WARPS * 32;
  static constexpr int TILE = 64;                        // positions
  static constexpr int GROUPS = (DIM + 63) / 64;
  static constexpr int PIECES = DIM / 8;                 // of 16 bytes
  static constexpr int QUERIES = GROUPS * ROWS * GROUP_BYTES;
  static constexpr int HALF = GROUPS * TILE * GROUP_BYTES;
  static constexpr int STEPS = DIM / 16;
};

// Rows of a launch's tile.
struct QueryTile {
  Row row;
  int kv_head, group;
  int first;         // the first row: token * group + head of the group
  int n;             // rows that exist
  int start, end;    // positions that any row sees
};

// The sequence and the tile of block `idx`; n = 0 if there are fewer tiles.
template <int ROWS> __device__ __forceinline__ QueryTile tile_of(const Operands& a, int idx) {
  QueryTile tile;
  tile.group = a.n_heads / a.n_kv_heads;
  tile.kv_head = blockIdx.y;
  tile.n = 0;
  int lane = threadIdx.x % 32, before = 0;
  for (int base = 0; base < a.n_rows; base += 32) {
    int r = base + lane, query_len = r < a.n_rows ? a.rows[r].query_len : 0;
    int n = query_len > 1 ? (query_len * tile.group + ROWS - 1) / ROWS : 0;
    int through = before + warp_scan(n), all = warp_sum(n);
    if (idx < before + all) {
      int at = warp_count(through <= idx);  // rows whose tiles all come before
      int first = warp_get(through - n, at);
      tile.row = a.rows[base + at];
      tile.first = (idx - first) * ROWS;
      tile.n = min(ROWS, tile.row.query_len * tile.group - tile.first);
      int position = tile.row.context_len - tile.row.query_len;
      tile.start = seen(a, position + tile.first / tile.group, tile.row.context_len).start;
      tile.end = seen(a, position + (tile.first + tile.n - 1) / tile.group, tile.row.context_len).end;
      return tile;
    }
    before += all;
  }
  return tile;
}

// The queries of a tile as groups of swizzled rows; rows and columns that do not exist are zeros.
template <typename T, int DIM, int ROWS>
__device__ __forceinline__ void load_query_tile(const Operands& a, const QueryTile& tile, char* to) {
  using S = PrefillShape<DIM, ROWS>;
  for (int i = threadIdx.x; i < ROWS * S::PIECES; i += S::THREADS) {
    int r = i / S::PIECES, piece = i % S::PIECES, idx = tile.first + min(r, tile.n - 1);
    const float* from = a.q + (size_t)(tile.row.query_start + idx / tile.group) * a.q_stride +
                        (size_t)(tile.kv_head * tile.group + idx % tile.group) * a.key_dim + piece * 8;
    uint4 packed;
    unsigned* words = (unsigned*)&packed;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int column = piece * 8 + e * 2;
      float low = r < tile.n && column < a.key_dim ? from[e * 2] : 0.0f;
      float high = r < tile.n && column + 1 < a.key_dim ? from[e * 2 + 1] : 0.0f;
      words[e] = pack2<T>(low, high);
    }
    *(uint4*)(to + (piece / 8 * ROWS + r) * GROUP_BYTES + ((piece % 8 ^ r % 8) << 4)) = packed;
  }
}

// Starts the copy of 64 keys or values to shared memory; `offset` leads from the key to what is copied.
// Positions that no row sees become zeros.
template <int DIM, int ROWS>
__device__ __forceinline__ void load_positions(const Operands& a, const QueryTile& tile, int first, size_t offset,
                                               char* to) {
  using S = PrefillShape<DIM, ROWS>;
  int piece = threadIdx.x % 8;
#pragma unroll
  for (int i = 0; i < S::TILE / (S::THREADS / 8); i++) {
    int at = threadIdx.x / 8 + i * (S::THREADS / 8), position = first + at;
    bool is_seen = position >= tile.start && position < tile.end;
    Place from = place_of(a, tile.row, tile.kv_head, is_seen ? position : tile.start);
    const char* source = from.key + offset + ((piece ^ from.swizzle) << 4);
    char* target = to + at * GROUP_BYTES + ((piece ^ (at % 8)) << 4);
#pragma unroll
    for (int g = 0; g < S::GROUPS; g++)
      if (g * 8 + piece < S::PIECES)
        cp_async16_zero(target + g * S::TILE * GROUP_BYTES, source + (size_t)g * a.block_size * GROUP_BYTES, is_seen ? 16 : 0);
  }
  cp_async_commit();
}

// The scores of this warp's 16 rows with 64 keys.
template <typename T, int DIM, int ROWS>
__device__ __forceinline__ void score_positions(const char* queries, const char* keys, float (&scores)[8][4]) {
  using S = PrefillShape<DIM, ROWS>;
  int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane % 16, r = lane % 8 + lane / 16 * 8;
#pragma unroll
  for (int j = 0; j < 8; j++) scores[j][0] = scores[j][1] = scores[j][2] = scores[j][3] = 0.0f;
#pragma unroll
  for (int step = 0; step < S::STEPS; step++) {
    unsigned q[4];
    int q_piece = step % 4 * 2 + lane / 16, piece = step % 4 * 2 + lane / 8 % 2;
    ldmatrix_x4(q, queries + (step / 4 * ROWS + row) * GROUP_BYTES + ((q_piece ^ (row % 8)) << 4));
#pragma unroll
    for (int n = 0; n < 4; n++) {
      unsigned k[4];
      ldmatrix_x4(k, keys + (step / 4 * S::TILE + n * 16 + r) * GROUP_BYTES + ((piece ^ (r % 8)) << 4));
      mma16816<T>(scores[2 * n], q, k[0], k[1]);
      mma16816<T>(scores[2 * n + 1], q, k[2], k[3]);
    }
  }
}

// Scales and masks the scores of this warp's rows with the positions from `first` on.
template <int ROWS>
__device__ __forceinline__ void shape_positions(const Operands& a, const QueryTile& tile, int first,
                                                float (&scores)[8][4]) {
  int lane = threadIdx.x % 32, row = tile.first + threadIdx.x / 32 * 16 + lane / 4;
  int last = tile.row.query_len * tile.group - 1, before = tile.row.context_len - tile.row.query_len;
#pragma unroll
  for (int x = 0; x < 2; x++) {
    int idx = min(row + x * 8, last), query = before + idx / tile.group;
    int head = tile.kv_head * tile.group + idx % tile.group;
    Range range = seen(a, query, tile.row.context_len);
    bool all_seen = first >= range.start && first + 64 <= range.end;
    if (all_seen && !is_shaped(a)) {
#pragma unroll
      for (int j = 0; j < 8; j++) {
        scores[j][2 * x] *= a.scale * LOG2_E;
        scores[j][2 * x + 1] *= a.scale * LOG2_E;
      }
      continue;
    }
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int position = first + j * 8 + lane % 4 * 2 + e;
        float score = scores[j][2 * x + e] * a.scale;
        if (is_shaped(a)) score = shaped(a, score, head, position - query);
        scores[j][2 * x + e] = position >= range.start && position < range.end ? score * LOG2_E : -INFINITY;
      }
    }
  }
}

// Adds 64 weighted values to the sums, which shrink first.
template <typename T, int DIM, int ROWS>
__device__ __forceinline__ void weigh_positions(const float (&weights)[8][4], const float (&shrink)[2],
                                                const char* values, float (&sums)[DIM / 8][4]) {
  using S = PrefillShape<DIM, ROWS>;
  int lane = threadIdx.x % 32, r = lane % 16;
#pragma unroll
  for (int i = 0; i < DIM / 8; i++)
#pragma unroll
    for (int e = 0; e < 4; e++) sums[i][e] *= shrink[e >> 1];
#pragma unroll
  for (int step = 0; step < 4; step++) {
    unsigned packed[4] = {
        pack2<T>(weights[2 * step][0], weights[2 * step][1]), pack2<T>(weights[2 * step][2], weights[2 * step][3]),
        pack2<T>(weights[2 * step + 1][0], weights[2 * step + 1][1]),
        pack2<T>(weights[2 * step + 1][2], weights[2 * step + 1][3])};
#pragma unroll
    for (int n = 0; n < S::STEPS; n++) {
      unsigned v[4];
      int piece = n % 4 * 2 + lane / 16;
      ldmatrix_x4_trans(v, values + (n / 4 * S::TILE + step * 16 + r) * GROUP_BYTES + ((piece ^ (r % 8)) << 4));
      mma16816<T>(sums[2 * n], packed, v[0], v[1]);
      mma16816<T>(sums[2 * n + 1], packed, v[2], v[3]);
    }
  }
}

template <int DIM>
__device__ __forceinline__ void store_rows(const Operands& a, const QueryTile& tile, const Softmax& softmax,
                                           const float (&sums)[DIM / 8][4]) {
  int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
#pragma unroll
  for (int x = 0; x < 2; x++) {
    if (row + x * 8 >= tile.n) continue;
    int idx = tile.first + row + x * 8, head = tile.kv_head * tile.group + idx % tile.group;
    float factor = finish_factor(softmax.largest[x], softmax.total[x], sink_of(a, head));
    float* out = a.out + ((size_t)(tile.row.query_start + idx / tile.group) * a.n_heads + head) * a.value_dim;
#pragma unroll
    for (int i = 0; i < DIM / 8; i++) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int column = i * 8 + lane % 4 * 2 + e;
        if (column < a.value_dim) out[column] = sums[i][2 * x + e] * factor;
      }
    }
  }
}

template <typename T, int DIM, int ROWS> __device__ __forceinline__ void attend_prefill(const Operands& a) {
  using S = PrefillShape<DIM, ROWS>;
  DYN_SMEM(char, queries);
  char *keys = queries + S::QUERIES, *values = keys + S::HALF;
  gdc_trigger();
  gdc_wait();
  // Late tiles of a sequence see the most positions, so they start first.
  QueryTile tile = tile_of<ROWS>(a, gridDim.x - 1 - blockIdx.x);
  if (tile.n == 0) return;
  int first = tile.start / S::TILE * S::TILE;
  load_positions<DIM, ROWS>(a, tile, first, 0, keys);
  load_query_tile<T, DIM, ROWS>(a, tile, queries);
  Softmax softmax;
  softmax.begin();
  float sums[DIM / 8][4];
#pragma unroll
  for (int i = 0; i < DIM / 8; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
  for (; first < tile.end; first += S::TILE) {
    cp_async_wait<0>();
    __syncthreads();  // the keys are there, and all have left the values
    load_positions<DIM, ROWS>(a, tile, first, values_offset(a), values);
    float scores[8][4], shrink[2];
    score_positions<T, DIM, ROWS>(queries, keys, scores);
    cp_async_wait<0>();
    __syncthreads();  // the values are there, and all have left the keys
    if (first + S::TILE < tile.end) load_positions<DIM, ROWS>(a, tile, first + S::TILE, 0, keys);
    shape_positions<ROWS>(a, tile, first, scores);
    softmax.take(scores, shrink);
    weigh_positions<T, DIM, ROWS>(scores, shrink, values, sums);
  }
  softmax.finish();
  store_rows<DIM>(a, tile, softmax, sums);
}
