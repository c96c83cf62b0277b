// Attention of sequences with several new tokens, over 16-bit pages: tiles of queries against tiles of 64
// positions (FlashAttention-2, Dao 2023).
//
// One buffer of keys and one of values: keys arrive while the values before them are used, and the other
// way round. Tiles of positions start at multiples of 64, so a token's result does not depend on the chunk
// it arrives in.
#pragma once
#include "query_tile.cuh"
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
  load_positions<S::TILE, S::PIECES, S::THREADS>(a, tile, first, 0, keys);
  load_query_tile<T, S::PIECES, ROWS, S::THREADS>(a, tile, queries);
  Softmax softmax;
  softmax.begin();
  float sums[DIM / 8][4];
#pragma unroll
  for (int i = 0; i < DIM / 8; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
  for (; first < tile.end; first += S::TILE) {
    cp_async_wait<0>();
    __syncthreads();  // the keys are there, and all have left the values
    load_positions<S::TILE, S::PIECES, S::THREADS>(a, tile, first, values_offset(a), values);
    float scores[8][4], shrink[2];
    score_positions<T, DIM, ROWS>(queries, keys, scores);
    cp_async_wait<0>();
    __syncthreads();  // the values are there, and all have left the keys
    if (first + S::TILE < tile.end) load_positions<S::TILE, S::PIECES, S::THREADS>(a, tile, first + S::TILE, 0, keys);
    shape_positions<ROWS>(a, tile, first, scores);
    softmax.take(scores, shrink);
    weigh_positions<T, DIM, ROWS>(scores, shrink, values, sums);
  }
  softmax.finish();
  store_rows<DIM>(a, tile, softmax, sums);
}
