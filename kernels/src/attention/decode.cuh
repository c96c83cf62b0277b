// Attention of sequences with one new token, over 16-bit pages: split contexts, heads of a group packed
// into the 16 rows of `mma16816` (the layout of Flash-Decoding, Dao et al. 2023, with grouped heads).
//
// Blocks stay; an item is (chunk, kv head, 16 of the group's heads). Tiles go through a ring of stages; the
// warps share a tile by positions and are joined at the end of an item. Positions behind the end are zeros
// in the stage, so that what a page holds there cannot leak.
#pragma once
#include "split.cuh"

template <int GROUPS> struct DecodeShape {
  static constexpr int COLUMN_PARTS = GROUPS <= 2 ? 1 : 2;   // of long heads a warp sums one half
  static constexpr int PARTS = 4 / COLUMN_PARTS;              // of the positions of a tile
  static constexpr int THREADS = 128;
  static constexpr int TILE = PARTS * 16;                     // positions
  static constexpr int N_SUMS = GROUPS * 8 / COLUMN_PARTS;    // products of 8 columns of a warp
  static constexpr int HALF = GROUPS * TILE * GROUP_BYTES;    // keys, or values, of a tile
  static constexpr int STAGES = GROUPS == 1 ? 4 : GROUPS == 3 ? 3 : 2;
  static constexpr int DIM = GROUPS * 64;
  static constexpr int SUM_STRIDE = DIM + 8;                  // spreads rows over the banks
  static constexpr int SUM_BYTES = PARTS * 16 * SUM_STRIDE * 4;
  static_assert(SUM_BYTES <= STAGES * 2 * HALF, "the warps' sums take the place of the ring");
};

struct DecodeShared {
  char* sums;            // [PARTS][16][SUM_STRIDE] floats
  float (*largest)[16];  // [PARTS][16]
  float (*total)[16];
};

// The 16 positions of a tile that this warp takes, and the half of the columns.
template <int GROUPS> __device__ __forceinline__ int position_part() {
  return threadIdx.x / 32 % DecodeShape<GROUPS>::PARTS;
}
template <int GROUPS> __device__ __forceinline__ int column_part() {
  return threadIdx.x / 32 / DecodeShape<GROUPS>::PARTS;
}

// Copies a tile to a stage: keys, then values, each as groups of rows of 128 bytes. Every thread takes one
// piece of the same rows of all groups. Positions that the token does not see become zeros.
template <int GROUPS>
__device__ __forceinline__ void load_tile(const Operands& a, const Item& item, int first, char* stage) {
  using S = DecodeShape<GROUPS>;
  int piece = threadIdx.x % 8, low = max(item.query - a.before, 0);
#pragma unroll
  for (int i = 0; i < S::TILE / (S::THREADS / 8); i++) {
    int at = threadIdx.x / 8 + i * (S::THREADS / 8), position = first + at;
    bool is_seen = position >= low && position < item.end;
    Place from = place_of(a, item.row, item.kv_head, is_seen ? position : item.query);
    const char* keys = from.key + ((piece ^ from.swizzle) << 4);
    const char* values = keys + values_offset(a);
    char* to = stage + at * GROUP_BYTES + ((piece ^ (at % 8)) << 4);
#pragma unroll
    for (int g = 0; g < GROUPS; g++) {
      size_t group = (size_t)g * a.block_size * GROUP_BYTES;
      cp_async16_zero(to + g * S::TILE * GROUP_BYTES, keys + group, is_seen ? 16 : 0);
      cp_async16_zero(to + g * S::TILE * GROUP_BYTES + S::HALF, values + group, is_seen ? 16 : 0);
    }
  }
}

// The queries of an item as the A operand of `mma16816`; rows and columns that do not exist are zeros.
template <typename T, int STEPS>
__device__ __forceinline__ void load_queries(const Operands& a, const Item& item, unsigned (&queries)[STEPS][4]) {
  int lane = threadIdx.x % 32;
  const float* q = a.q + (size_t)item.row.query_start * a.q_stride + (size_t)item.first_head * a.key_dim;
#pragma unroll
  for (int step = 0; step < STEPS; step++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int r = lane / 4 + (e & 1) * 8, c = step * 16 + lane % 4 * 2 + (e >> 1) * 8;
      const float* from = q + (size_t)r * a.key_dim + c;
      float low = r < item.n_heads && c < a.key_dim ? from[0] : 0.0f;
      float high = r < item.n_heads && c + 1 < a.key_dim ? from[1] : 0.0f;
      queries[step][e] = pack2<T>(low, high);
    }
  }
}

// The scores of 16 rows with this warp's 16 positions of a stage.
template <typename T, int GROUPS>
__device__ __forceinline__ void score_tile(const unsigned (&queries)[GROUPS * 4][4], const char* stage,
                                           float (&scores)[2][4]) {
  using S = DecodeShape<GROUPS>;
  int lane = threadIdx.x % 32, r = position_part<GROUPS>() * 16 + lane % 8 + lane / 16 * 8;
#pragma unroll
  for (int j = 0; j < 2; j++) scores[j][0] = scores[j][1] = scores[j][2] = scores[j][3] = 0.0f;
#pragma unroll
  for (int step = 0; step < GROUPS * 4; step++) {
    unsigned keys[4];
    int piece = step % 4 * 2 + lane / 8 % 2;
    ldmatrix_x4(keys, stage + (step / 4 * S::TILE + r) * GROUP_BYTES + ((piece ^ (r % 8)) << 4));
    mma16816<T>(scores[0], queries[step], keys[0], keys[1]);
    mma16816<T>(scores[1], queries[step], keys[2], keys[3]);
  }
}

// Scales and masks the scores of the positions from `first` on.
__device__ __forceinline__ void shape_scores(const Operands& a, const Item& item, int first, float (&scores)[2][4]) {
  int lane = threadIdx.x % 32, low = item.query - a.before;
#pragma unroll
  for (int j = 0; j < 2; j++) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int position = first + j * 8 + lane % 4 * 2 + (e & 1), r = lane / 4 + (e >> 1) * 8;
      float score = scores[j][e] * a.scale;
      if (is_shaped(a)) score = shaped(a, score, item.first_head + min(r, item.n_heads - 1), position - item.query);
      scores[j][e] = position >= low && position < item.end ? score * LOG2_E : -INFINITY;
    }
  }
}

// Which half of a pair of 16-bit values is at positions `at` and `at + 1` within a range.
__device__ __forceinline__ unsigned pair_mask(int at, Range range) {
  unsigned low = at >= range.start && at < range.end ? 0xffffu : 0u;
  unsigned high = at + 1 >= range.start && at + 1 < range.end ? 0xffff0000u : 0u;
  return low | high;
}

// Adds this warp's 16 weighted values of a stage to the sums, which shrink first. With CUTS, values outside of `kept`
// (of the 16) count as zeros, whatever they are.
template <typename T, int GROUPS, bool CUTS = false>
__device__ __forceinline__ void weigh_tile(const float (&weights)[2][4], const float (&shrink)[2], const char* stage,
                                           float (&sums)[DecodeShape<GROUPS>::N_SUMS][4], Range kept = {0, 16}) {
  using S = DecodeShape<GROUPS>;
  int lane = threadIdx.x % 32, r = position_part<GROUPS>() * 16 + lane % 16;
  unsigned packed[4] = {pack2<T>(weights[0][0], weights[0][1]), pack2<T>(weights[0][2], weights[0][3]),
                        pack2<T>(weights[1][0], weights[1][1]), pack2<T>(weights[1][2], weights[1][3])};
#pragma unroll
  for (int n = 0; n < S::N_SUMS / 2; n++) {
    unsigned values[4];
    int columns = column_part<GROUPS>() * (S::N_SUMS / 2) + n, piece = columns % 4 * 2 + lane / 16;
    ldmatrix_x4_trans(values, stage + S::HALF + (columns / 4 * S::TILE + r) * GROUP_BYTES + ((piece ^ (r % 8)) << 4));
    if (CUTS) {
#pragma unroll
      for (int e = 0; e < 4; e++) values[e] &= pair_mask(lane % 4 * 2 + (e & 1) * 8, kept);
    }
#pragma unroll
    for (int e = 0; e < 4; e++) {
      sums[2 * n][e] *= shrink[e >> 1];
      sums[2 * n + 1][e] *= shrink[e >> 1];
    }
    mma16816<T>(sums[2 * n], packed, values[0], values[1]);
    mma16816<T>(sums[2 * n + 1], packed, values[2], values[3]);
  }
}

// The weighted values of an item, this warp's share of the positions.
template <typename T, int GROUPS>
__device__ __forceinline__ void compute_item(const Operands& a, const Item& item, char* ring, Softmax& softmax,
                                             float (&sums)[DecodeShape<GROUPS>::N_SUMS][4]) {
  using S = DecodeShape<GROUPS>;
  int n_tiles = (item.end - item.start + S::TILE - 1) / S::TILE;
  unsigned queries[GROUPS * 4][4];
#pragma unroll
  for (int i = 0; i < S::STAGES - 1; i++) {
    if (i < n_tiles) load_tile<GROUPS>(a, item, item.start + i * S::TILE, ring + i * 2 * S::HALF);
    cp_async_commit();
  }
  load_queries<T>(a, item, queries);
  softmax.begin();
#pragma unroll
  for (int i = 0; i < S::N_SUMS; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
  for (int i = 0; i < n_tiles; i++) {
    cp_async_wait<S::STAGES - 2>();
    __syncthreads();  // the tile is there for all, and all have left the stage that is filled next
    int next = i + S::STAGES - 1;
    if (next < n_tiles) load_tile<GROUPS>(a, item, item.start + next * S::TILE, ring + next % S::STAGES * 2 * S::HALF);
    cp_async_commit();
    const char* stage = ring + i % S::STAGES * 2 * S::HALF;
    float scores[2][4], shrink[2];
    score_tile<T, GROUPS>(queries, stage, scores);
    shape_scores(a, item, item.start + i * S::TILE + position_part<GROUPS>() * 16, scores);
    softmax.take(scores, shrink);
    weigh_tile<T, GROUPS>(scores, shrink, stage, sums);
  }
  softmax.finish();
}

// Writes what this warp has of an item to shared memory.
template <int GROUPS>
__device__ __forceinline__ void share_sums(const DecodeShared& s, const Softmax& softmax,
                                           const float (&sums)[DecodeShape<GROUPS>::N_SUMS][4]) {
  using S = DecodeShape<GROUPS>;
  int lane = threadIdx.x % 32, part = position_part<GROUPS>();
  float* own = (float*)s.sums + part * 16 * S::SUM_STRIDE + column_part<GROUPS>() * S::N_SUMS * 8 + lane % 4 * 2;
#pragma unroll
  for (int x = 0; x < 2; x++) {
    int r = lane / 4 + x * 8;
    if (lane % 4 == 0 && column_part<GROUPS>() == 0) {
      s.largest[part][r] = softmax.largest[x];
      s.total[part][r] = softmax.total[x];
    }
#pragma unroll
    for (int i = 0; i < S::N_SUMS; i++)
      *(float2*)(own + r * S::SUM_STRIDE + i * 8) = make_float2(sums[i][2 * x], sums[i][2 * x + 1]);
  }
}

// A row of an item with the parts' shares joined: `largest`, `total` and each part's factor.
template <int PARTS> struct Joined {
  float largest, total, factor[PARTS];
};

template <int PARTS> __device__ __forceinline__ Joined<PARTS> join(const DecodeShared& s, int r) {
  Joined<PARTS> row;
  row.largest = -INFINITY;
  row.total = 0.0f;
#pragma unroll
  for (int w = 0; w < PARTS; w++) row.largest = fmaxf(row.largest, s.largest[w][r]);
#pragma unroll
  for (int w = 0; w < PARTS; w++) {
    row.factor[w] = row.largest == -INFINITY ? 0.0f : exp2f(s.largest[w][r] - row.largest);
    row.total += s.total[w][r] * row.factor[w];
  }
  return row;
}

// Writes an item's result, or its part of the result.
template <int GROUPS>
__device__ __forceinline__ void store_item(const Operands& a, const Item& item, const DecodeShared& s,
                                           const Partials& partials, int idx) {
  using S = DecodeShape<GROUPS>;
  bool is_whole = item.n_chunks == 1;
  float* out = a.out + ((size_t)item.row.query_start * a.n_heads + item.first_head) * a.value_dim;
  float* to = is_whole ? out : partials.sums_of(a, idx);
  for (int r = 0; r < item.n_heads; r++) {
    Joined<S::PARTS> row = join<S::PARTS>(s, r);
    float factor = is_whole ? finish_factor(row.largest, row.total, sink_of(a, item.first_head + r)) : 1.0f;
    for (int e = threadIdx.x; e < a.value_dim; e += S::THREADS) {
      float sum = 0.0f;
#pragma unroll
      for (int w = 0; w < S::PARTS; w++)
        sum += ((const float*)s.sums)[(w * 16 + r) * S::SUM_STRIDE + e] * row.factor[w];
      to[r * a.value_dim + e] = sum * factor;
    }
    if (!is_whole && threadIdx.x == 0) partials.stats_of(idx)[r] = make_float2(row.largest, row.total);
  }
}

template <typename T, int GROUPS>
__device__ __forceinline__ void attend_decode(const Operands& a, float* sums_of_chunks, unsigned* arrivals) {
  using S = DecodeShape<GROUPS>;
  constexpr Sizes SIZES = {S::TILE, 16};
  __shared__ float largest[S::PARTS][16], total[S::PARTS][16];
  DYN_SMEM(char, memory);
  DecodeShared s = {memory, largest, total};
  gdc_trigger();
  gdc_wait();
  Plan plan = plan_of(a, SIZES, (int*)(memory + S::STAGES * 2 * S::HALF));
  Partials partials = partials_of(a, plan, SIZES, sums_of_chunks, arrivals);
  for (int idx = blockIdx.x; idx < plan.n_items; idx += gridDim.x) {
    Item item = item_of(a, plan, SIZES, idx);
    if (item.row.query_len == 0) {
      store_zeros<S::THREADS>(a, item);
      continue;
    }
    Softmax softmax;
    float sums[S::N_SUMS][4];
    compute_item<T, GROUPS>(a, item, memory, softmax, sums);
    cp_async_wait<0>();
    __syncthreads();  // all have left the ring
    share_sums<GROUPS>(s, softmax, sums);
    __syncthreads();
    store_item<GROUPS>(a, item, s, partials, idx);
    if (item.n_chunks > 1) arrive<WholeBlock<S::THREADS>>(a, item, partials, idx);
    __syncthreads();  // all have left the sums
  }
}
