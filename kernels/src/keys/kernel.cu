// Queries, keys and values are made ready for attention: limits, norms, rotary positions, the write to the cache. A block
// takes some heads of one kind of a token, in shared memory.
#include "../cuda/rows.cuh"
#include "../kv_cache/pages.cuh"

namespace {

constexpr int N_WARPS = 4, N_THREADS = 32 * N_WARPS;

struct HeadNorm {
  int kind; // 0: none, 1: root mean square, 2: layer
  const float* weight;
  int weight_step; // from one head to the next
  const float* bias;
  int bias_step;
  float eps;
};

struct Turn {
  int half_dim;
  int are_neighbours;
  const float* cos;
  const float* sin;
};

__device__ __forceinline__ void turn_pair(const Turn& of, float* head, size_t angles, int i) {
  int a = of.are_neighbours ? 2 * i : i, b = of.are_neighbours ? 2 * i + 1 : i + of.half_dim;
  float cos = of.cos[angles + i], sin = of.sin[angles + i], x = head[a], y = head[b];
  head[a] = x * cos - y * sin;
  head[b] = y * cos + x * sin;
}

// Sums over a warp or over the block.
template <bool OF_BLOCK> __device__ __forceinline__ float sum_over(float v) {
  if constexpr (OF_BLOCK) return block_sum(v);
  return warp_sum(v);
}

// The norm of x, of n elements, by a warp or by the block; element i has weight[i].
template <bool OF_BLOCK>
__device__ __forceinline__ void norm(const HeadNorm& of, float* x, int n, const float* weight, const float* bias) {
  int first = OF_BLOCK ? threadIdx.x : threadIdx.x % 32, step = OF_BLOCK ? N_THREADS : 32;
  float mean = 0, squares = 0;
  if (of.kind == 2) {
    float total = 0;
    for (int i = first; i < n; i += step) total += x[i];
    mean = sum_over<OF_BLOCK>(total) / n;
  }
  for (int i = first; i < n; i += step) squares += (x[i] - mean) * (x[i] - mean);
  float scale = 1.0f / sqrtf(sum_over<OF_BLOCK>(squares) / n + of.eps);
  for (int i = first; i < n; i += step) {
    float v = (x[i] - mean) * scale;
    if (weight) v *= weight[i];
    if (bias) v += bias[i];
    x[i] = v;
  }
}

// The norm of each of n_heads heads from head `first` on, or of all heads together.
__device__ __forceinline__ void norm_heads(const HeadNorm& of, bool over_all, float* heads, int head_dim, int first,
                     int n_heads) {
  if (of.kind == 0) return;
  if (over_all) {
    norm<true>(of, heads, n_heads * head_dim, of.weight, of.bias);
    return;
  }
  for (int head = threadIdx.x / 32; head < n_heads; head += N_WARPS) {
    const float* weight = of.weight ? of.weight + (first + head) * of.weight_step : nullptr;
    const float* bias = of.bias ? of.bias + (first + head) * of.bias_step : nullptr;
    norm<false>(of, heads + head * head_dim, head_dim, weight, bias);
  }
}

// Writes n elements to the pieces of a slot from `first_piece` on, and zeros behind them, by the threads first,
// first + step, ... of some.
template <class T>
__device__ __forceinline__ void write_groups(const KvPages& pages, int slot, int head, int2 groups, const float* x, int n,
                      int first, int step) {
  constexpr int PER_PIECE = KV_PIECE_BYTES / sizeof(T);
  for (int piece = first; piece < groups.y * 8; piece += step) {
    float values[PER_PIECE];
#pragma unroll
    for (int i = 0; i < PER_PIECE; i++) {
      int at = piece * PER_PIECE + i;
      values[i] = at < n ? x[at] : 0.0f;
    }
    store_rounded<T>(kv_at(pages, slot, head, groups.x * 8 + piece), values);
  }
}

// A slot of the cache, or -1 where nothing is to be written.
__device__ __forceinline__ int slot_of(const KvPages& pages, const int* slots) {
  int slot = slots[blockIdx.x];
  return 0 <= slot && slot < pages.n_blocks * pages.block_size ? slot : -1;
}

enum Kind { QUERIES, KEYS, VALUES };
enum NormsAt { BEFORE_ROPE = 1, AFTER_ROPE = 2, OVER_ALL_HEADS = 4 };

struct Keys {
  float* qkv;
  int row_stride, q_first, n_q_heads, k_first, n_kv_heads, head_dim;
  int heads_per_block;
  float clip;
  int norms_at;
  HeadNorm q_norm, k_norm, v_norm;
  Turn q_turn, k_turn;
  KvPages pages;
  const int* slots;
};

template <class T> __device__ __forceinline__ void keys(const Keys& op) {
  DYN_SMEM(float, heads);
  gdc_trigger();
  gdc_wait();
  // Which heads: first parts of queries, then of keys, then of values.
  int part = blockIdx.y, kind = QUERIES, n_of_kind = op.n_q_heads;
  int n_q_parts = (op.n_q_heads + op.heads_per_block - 1) / op.heads_per_block;
  int n_kv_parts = (op.n_kv_heads + op.heads_per_block - 1) / op.heads_per_block;
  if (part >= n_q_parts) {
    n_of_kind = op.n_kv_heads;
    kind = part - n_q_parts < n_kv_parts ? KEYS : VALUES;
    part = (part - n_q_parts) % n_kv_parts;
  }
  int first = part * op.heads_per_block, n_heads = min(op.heads_per_block, n_of_kind - first);
  int at = kind == QUERIES ? op.q_first : op.k_first + (kind == VALUES ? op.n_kv_heads * op.head_dim : 0);
  float* x = op.qkv + (size_t)blockIdx.x * op.row_stride + at + first * op.head_dim;
  int n = n_heads * op.head_dim;

  for (int i = threadIdx.x; i < n; i += N_THREADS) {
    float v = x[i];
    heads[i] = v > op.clip ? op.clip : v < -op.clip ? -op.clip : v;
  }
  __syncthreads();
  HeadNorm norm = kind == QUERIES ? op.q_norm : kind == KEYS ? op.k_norm : op.v_norm;
  Turn turn = kind == QUERIES ? op.q_turn : op.k_turn;
  bool over_all = op.norms_at & OVER_ALL_HEADS;
  if (op.norms_at & BEFORE_ROPE) {
    norm_heads(norm, over_all, heads, op.head_dim, first, n_heads);
    __syncthreads();
  }
  if (kind != VALUES && turn.half_dim > 0) {
    for (int i = threadIdx.x; i < n_heads * turn.half_dim; i += N_THREADS) {
      int head = i / turn.half_dim;
      turn_pair(turn, heads + head * op.head_dim, (size_t)blockIdx.x * turn.half_dim, i % turn.half_dim);
    }
    __syncthreads();
  }
  if (op.norms_at & AFTER_ROPE) {
    norm_heads(norm, over_all, heads, op.head_dim, first, n_heads);
    __syncthreads();
  }
  if (kind == QUERIES) {
    for (int i = threadIdx.x; i < n; i += N_THREADS) x[i] = heads[i];
    return;
  }
  int slot = slot_of(op.pages, op.slots);
  if (slot < 0) return;
  int2 groups = kind == KEYS ? make_int2(0, op.pages.key_groups)
               : make_int2(op.pages.key_groups, op.pages.value_groups);
  for (int head = threadIdx.x / 32; head < n_heads; head += N_WARPS) {
    const float* of_head = heads + head * op.head_dim;
    write_groups<T>(op.pages, slot, first + head, groups, of_head, op.head_dim, threadIdx.x % 32, 32);
  }
}

struct LatentKeys {
  float* q;
  int q_stride, q_first, n_q_heads, q_head_dim, turn_from;
  const float* latent;
  int rank;
  HeadNorm norm;
  Turn q_turn, k_turn;
  KvPages pages;
  const int* slots;
};

template <class T> __device__ __forceinline__ void latent_keys(const LatentKeys& op) {
  DYN_SMEM(float, key);
  gdc_trigger();
  gdc_wait();
  size_t token = blockIdx.x;
  if (blockIdx.y > 0) {
    int head = (blockIdx.y - 1) * N_WARPS + threadIdx.x / 32;
    if (head >= op.n_q_heads) return;
    float* x = op.q + token * op.q_stride + op.q_first + head * op.q_head_dim + op.turn_from;
    int half_dim = op.q_turn.half_dim;
    for (int i = threadIdx.x % 32; i < half_dim; i += 32) turn_pair(op.q_turn, x, token * half_dim, i);
    return;
  }
  int half_dim = op.k_turn.half_dim, n = op.rank + 2 * half_dim;
  for (int i = threadIdx.x; i < n; i += N_THREADS) key[i] = op.latent[token * n + i];
  __syncthreads();
  norm<true>(op.norm, key, op.rank, op.norm.weight, op.norm.bias);
  for (int i = threadIdx.x; i < half_dim; i += N_THREADS) turn_pair(op.k_turn, key + op.rank, token * half_dim, i);
  __syncthreads();
  int slot = slot_of(op.pages, op.slots);
  if (slot < 0) return;
  write_groups<T>(op.pages, slot, 0, make_int2(0, op.pages.key_groups), key, n, threadIdx.x, N_THREADS);
}

} // namespace

#define HEAD_NORM(x) \
  int x##_kind, const float* x##_weight, int x##_weight_step, const float* x##_bias, int x##_bias_step, float x##_eps
#define HEAD_NORM_OF(x) \
  HeadNorm { x##_kind, x##_weight, x##_weight_step, x##_bias, x##_bias_step, x##_eps }
#define TURN int half_dim, int are_neighbours, const float* q_cos, const float* q_sin, const float* k_cos, const float* k_sin
#define TURN_OF(x) Turn { half_dim, are_neighbours, x##_cos, x##_sin }
#define PAGES char* blocks, int n_blocks, int block_size, int n_page_heads, int key_groups, int value_groups
#define PAGES_OF KvPages { blocks, n_blocks, block_size, n_page_heads, key_groups, value_groups }

#define KEYS_KERNEL(name, T) \
  extern "C" __global__ void __launch_bounds__(N_THREADS) \
    name(float* qkv, int row_stride, int q_first, int n_q_heads, int k_first, int n_kv_heads, int head_dim, \
      int heads_per_block, float clip, int norms_at, HEAD_NORM(q), HEAD_NORM(k), HEAD_NORM(v), TURN, PAGES, \
      const int* slots) { \
    keys<T>({qkv, row_stride, q_first, n_q_heads, k_first, n_kv_heads, head_dim, heads_per_block, clip, norms_at, \
        HEAD_NORM_OF(q), HEAD_NORM_OF(k), HEAD_NORM_OF(v), TURN_OF(q), TURN_OF(k), PAGES_OF, slots}); \
  }
KEYS_KERNEL(keys_f32, float)
KEYS_KERNEL(keys_f16, f16)
KEYS_KERNEL(keys_bf16, bf16)

#define LATENT_KEYS_KERNEL(name, T) \
  extern "C" __global__ void __launch_bounds__(N_THREADS) \
    name(float* q, int q_stride, int q_first, int n_q_heads, int q_head_dim, int turn_from, const float* latent, \
      int rank, HEAD_NORM(norm), TURN, PAGES, const int* slots) { \
    latent_keys<T>({q, q_stride, q_first, n_q_heads, q_head_dim, turn_from, latent, rank, HEAD_NORM_OF(norm), \
            TURN_OF(q), TURN_OF(k), PAGES_OF, slots}); \
  }
LATENT_KEYS_KERNEL(latent_keys_f32, float)
LATENT_KEYS_KERNEL(latent_keys_f16, f16)
LATENT_KEYS_KERNEL(latent_keys_bf16, bf16)
