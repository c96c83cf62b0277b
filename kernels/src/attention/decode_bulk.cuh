// `decode` with bulk copies (sm_90): a warp of its own copies whole runs of rows of a page into the ring, up to the
// next items', while four warps compute. Blocks of the cache hold a multiple of 8 positions, so the pieces of a
// row have the same order in a page and in a stage.
#pragma once
#include "decode.cuh"

constexpr int PRODUCER_WARP = 4;
constexpr int BULK_THREADS = 160;

// Barriers of the ring: a stage is full when its bytes are there, and empty when the four warps have left it.
template <int GROUPS> struct Ring {
  char* stages;
  uint64_t *full, *empty;

  __device__ __forceinline__ char* stage(int n) const {
    return stages + n % DecodeShape<GROUPS>::STAGES * 2 * DecodeShape<GROUPS>::HALF;
  }
};

// Starts the copies of a tile, from the first position that is seen (and those before it that are in the same rows of 8).
template <int GROUPS>
__device__ __forceinline__ void copy_tile(const Operands& a, const Item& item, int first, char* stage,
                                          uint64_t* full) {
  using S = DecodeShape<GROUPS>;
  int lane = threadIdx.x % 32, bytes_of_group = a.block_size * GROUP_BYTES;
  int start = max(first, max(item.query - a.before, 0) / 8 * 8), end = min(first + S::TILE, item.end);
  if (lane == 0) mbar_expect(full, (end - start) * 2 * GROUPS * GROUP_BYTES);
  __syncwarp();
  int first_block = start / a.block_size, n_blocks = (end - 1) / a.block_size + 1 - first_block;
  for (int i = lane; i < n_blocks * 2 * GROUPS; i += 32) {
    int block = first_block + i / (2 * GROUPS), group = i % (2 * GROUPS);
    int from = max(start, block * a.block_size), to = min(end, (block + 1) * a.block_size);
    Place place = place_of(a, item.row, item.kv_head, from);
    bulk_load(stage + (group * S::TILE + from - first) * GROUP_BYTES, place.key + (size_t)group * bytes_of_group,
              (to - from) * GROUP_BYTES, full);
  }
}

// The producer warp: all tiles of the block's items, as stages become empty.
template <int GROUPS>
__device__ __forceinline__ void copy_items(const Operands& a, const Plan& plan, Sizes sizes, const Ring<GROUPS>& ring) {
  using S = DecodeShape<GROUPS>;
  int n = 0;
  for (int idx = blockIdx.x; idx < plan.n_items; idx += gridDim.x) {
    Item item = item_of(a, plan, sizes, idx);
    if (item.row.query_len == 0) continue;
    for (int first = item.start; first < item.end; first += S::TILE, n++) {
      int stage = n % S::STAGES, round = n / S::STAGES;
      if (round > 0) mbar_wait(&ring.empty[stage], (round - 1) & 1);
      copy_tile<GROUPS>(a, item, first, ring.stage(n), &ring.full[stage]);
    }
  }
}

// As `compute_item` of decode.cuh, from tile `n` of the ring on.
template <typename T, int GROUPS>
__device__ __forceinline__ void compute_copied(const Operands& a, const Item& item, const Ring<GROUPS>& ring, int& n,
                                               Softmax& softmax, float (&sums)[DecodeShape<GROUPS>::N_SUMS][4]) {
  using S = DecodeShape<GROUPS>;
  unsigned queries[GROUPS * 4][4];
  load_queries<T>(a, item, queries);
  softmax.begin();
#pragma unroll
  for (int i = 0; i < S::N_SUMS; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
  Range range = {max(item.query - a.before, 0), item.end};
  for (int first = item.start; first < item.end; first += S::TILE, n++) {
    int stage = n % S::STAGES, own = first + position_part<GROUPS>() * 16;
    float scores[2][4], shrink[2];
    mbar_wait(&ring.full[stage], n / S::STAGES & 1);
    score_tile<T, GROUPS>(queries, ring.stage(n), scores);
    shape_scores(a, item, own, scores);
    softmax.take(scores, shrink);
    // The stage holds anything at positions that were not copied.
    if (own >= range.start && own + 16 <= range.end)
      weigh_tile<T, GROUPS>(scores, shrink, ring.stage(n), sums);
    else
      weigh_tile<T, GROUPS, true>(scores, shrink, ring.stage(n), sums, {range.start - own, range.end - own});
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbar_arrive(&ring.empty[stage]);
  }
  softmax.finish();
}

template <typename T, int GROUPS>
__device__ __forceinline__ void attend_decode_bulk(const Operands& a, float* sums_of_chunks, unsigned* arrivals) {
  using S = DecodeShape<GROUPS>;
  using Warps = FirstThreads<128>;
  constexpr Sizes SIZES = {S::TILE, 16};
  __shared__ float largest[S::PARTS][16], total[S::PARTS][16];
  __shared__ uint64_t full[S::STAGES], empty[S::STAGES];
  DYN_SMEM(char, memory);
  Ring<GROUPS> ring = {memory, full, empty};
  DecodeShared s = {memory + S::STAGES * 2 * S::HALF, largest, total};
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::STAGES; i++) {
      mbar_init(&full[i], 1);
      mbar_init(&empty[i], 4);
    }
    mbar_init_fence();
  }
  gdc_trigger();
  gdc_wait();
  Plan plan = plan_of(a, SIZES, (int*)(s.sums + S::SUM_BYTES));
  if (threadIdx.x / 32 == PRODUCER_WARP) {
    copy_items<GROUPS>(a, plan, SIZES, ring);
    return;
  }
  Partials partials = partials_of(a, plan, SIZES, sums_of_chunks, arrivals);
  int n = 0;
  for (int idx = blockIdx.x; idx < plan.n_items; idx += gridDim.x) {
    Item item = item_of(a, plan, SIZES, idx);
    if (item.row.query_len == 0) {
      store_zeros<128>(a, item);
      continue;
    }
    Softmax softmax;
    float sums[S::N_SUMS][4];
    compute_copied<T, GROUPS>(a, item, ring, n, softmax, sums);
    share_sums<GROUPS>(s, softmax, sums);
    Warps::sync();
    store_item<GROUPS>(a, item, s, partials, idx);
    if (item.n_chunks > 1) arrive<Warps>(a, item, partials, idx);
    Warps::sync();  // all have left the sums
  }
}
