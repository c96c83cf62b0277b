// A tile of queries: pairs of a token and one of the query heads that share a head of the cache, token by token, so
// that keys and values are read once for all of them.
#pragma once
#include "operands.cuh"

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
template <typename T, int PIECES, int ROWS, int THREADS>
__device__ __forceinline__ void load_query_tile(const Operands& a, const QueryTile& tile, char* to) {
  for (int i = threadIdx.x; i < ROWS * PIECES; i += THREADS) {
    int r = i / PIECES, piece = i % PIECES, idx = tile.first + min(r, tile.n - 1);
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

// Starts the copy of N keys or values to shared memory; `offset` leads from the key to what is copied.
// Positions that no row sees become zeros.
template <int N, int PIECES, int THREADS>
__device__ __forceinline__ void load_positions(const Operands& a, const QueryTile& tile, int first, size_t offset,
                                               char* to) {
  int piece = threadIdx.x % 8;
#pragma unroll
  for (int i = 0; i < N / (THREADS / 8); i++) {
    int at = threadIdx.x / 8 + i * (THREADS / 8), position = first + at;
    bool is_seen = position >= tile.start && position < tile.end;
    Place from = place_of(a, tile.row, tile.kv_head, is_seen ? position : tile.start);
    const char* source = from.key + offset + ((piece ^ from.swizzle) << 4);
    char* target = to + at * GROUP_BYTES + ((piece ^ (at % 8)) << 4);
#pragma unroll
    for (int g = 0; g < (PIECES + 7) / 8; g++)
      if (g * 8 + piece < PIECES)
        cp_async16_zero(target + g * N * GROUP_BYTES, source + (size_t)g * a.block_size * GROUP_BYTES, is_seen ? 16 : 0);
  }
  cp_async_commit();
}
