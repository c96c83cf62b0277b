// Attention of any shape and option: one block per token and query head.
//
// Positions are taken 128 at a time from the first one seen, so a token's result depends neither on its
// chunk nor on the rest of the batch. Positions that are not seen are never read.
#pragma once
#include "operands.cuh"

constexpr int GENERAL_THREADS = 128;

// Shared memory of the general kernel.
struct General {
  float* query;    // [key_dim up to whole pieces]
  float* sums;     // weighted values so far. [value_dim]
  float* weights;  // of the tile. [GENERAL_THREADS]
  Place* places;   // of the tile's positions. [GENERAL_THREADS]
};

template <typename T>
__device__ __forceinline__ float product(const Operands& a, const General& s, Place place) {
  constexpr int N = 16 / sizeof(T);
  int n_pieces = (a.key_dim + N - 1) / N;
  float sum = 0.0f;
  for (int piece = 0; piece < n_pieces; piece++) {
    const char* group = place.key + (size_t)(piece / 8) * a.block_size * GROUP_BYTES;
    float key[N];
    load_piece<T>(group + ((piece % 8) ^ place.swizzle) * 16, key);
#pragma unroll
    for (int i = 0; i < N; i++) sum = fmaf(s.query[piece * N + i], key[i], sum);
  }
  return sum;
}

// Adds the tile's weighted values to the sums, which shrink first.
template <typename T>
__device__ __forceinline__ void weigh_values(const Operands& a, const General& s, int n, float shrink) {
  constexpr int N = 16 / sizeof(T);
  for (int e = threadIdx.x; e < a.value_dim; e += GENERAL_THREADS) {
    int piece = e / N;
    size_t group = values_offset(a) + (size_t)(piece / 8) * a.block_size * GROUP_BYTES;
    float sum = s.sums[e] * shrink;
    for (int i = 0; i < n; i++) {
      const char* at = s.places[i].key + group + ((piece % 8) ^ s.places[i].swizzle) * 16;
      sum = fmaf(s.weights[i], to_float(((const T*)at)[e % N]), sum);
    }
    s.sums[e] = sum;
  }
}

// What the distance of two tokens of a whole sequence adds to the score of a head.
__device__ __forceinline__ float of_tokens(const Operands& a, int query, int key, int head, int distance) {
  if (a.n_buckets == 0) return 0.0f;
  int bucket = bucket_of(a, distance);
  float sum = 0.0f;
  if (a.of_queries != nullptr) sum += a.of_queries[((size_t)query * a.n_heads + head) * a.n_buckets + bucket];
  if (a.of_keys != nullptr) sum += a.of_keys[((size_t)key * a.n_heads + head) * a.n_buckets + bucket];
  return a.scale * sum;
}

template <typename T> __device__ __forceinline__ void attend_general(const Operands& a) {
  constexpr int N = 16 / sizeof(T);
  DYN_SMEM(char, memory);
  int t = threadIdx.x, token = blockIdx.x / a.n_heads, head = blockIdx.x % a.n_heads;
  int padded_dim = (a.key_dim + N - 1) / N * N;
  General s;
  s.places = (Place*)memory;
  s.weights = (float*)(s.places + GENERAL_THREADS);
  s.query = s.weights + GENERAL_THREADS;
  s.sums = s.query + padded_dim;
  gdc_trigger();
  gdc_wait();
  Row row = row_of(a, token);
  int idx = token - row.query_start;
  float* out = a.out + ((size_t)token * a.n_heads + head) * a.value_dim;
  if (idx < 0 || idx >= row.query_len) {
    for (int e = t; e < a.value_dim; e += GENERAL_THREADS) out[e] = 0.0f;
    return;
  }
  const float* q = a.q + (size_t)token * a.q_stride + (size_t)head * a.key_dim;
  for (int i = t; i < padded_dim; i += GENERAL_THREADS) s.query[i] = i < a.key_dim ? q[i] * a.scale : 0.0f;
  for (int e = t; e < a.value_dim; e += GENERAL_THREADS) s.sums[e] = 0.0f;
  int position = row.context_len - row.query_len + idx, kv_head = head / (a.n_heads / a.n_kv_heads);
  Range range = seen(a, position, row.context_len);
  // A sink is a score that was seen before all others: it weighs 1 relative to itself.
  float largest = a.sinks != nullptr ? a.sinks[head] : -INFINITY;
  float total = a.sinks != nullptr ? 1.0f : 0.0f;
  __syncthreads();
  for (int first = range.start; first < range.end; first += GENERAL_THREADS) {
    int n = min(GENERAL_THREADS, range.end - first);
    float score = -INFINITY;
    if (t < n) {
      s.places[t] = place_of(a, row, kv_head, first + t);
      score = shaped(a, product<T>(a, s, s.places[t]), head, first + t - position);
      score += of_tokens(a, token, row.query_start + first + t, head, first + t - position);
    }
    float before = largest;
    largest = fmaxf(largest, block_max(score));
    float weight = t < n ? expf(score - largest) : 0.0f;
    s.weights[t] = weight;
    float shrink = expf(before - largest);
    total = total * shrink + block_sum(weight);
    weigh_values<T>(a, s, n, shrink);
    __syncthreads();
  }
  for (int e = t; e < a.value_dim; e += GENERAL_THREADS) out[e] = s.sums[e] / total;
}
