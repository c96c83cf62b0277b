// What all attention kernels share: their operands, which positions a token sees, and scores.
#pragma once
#include "warp.cuh"

// One sequence of a step; `AttendRow` of attention/cuda.rs.
struct Row {
  int query_start;  // its first token in q and out
  int query_len;    // new tokens, the last ones of the context; 0: the token at query_start is padding
  int context_len;  // tokens in the cache
  int first_block;  // its first block in the table
};

// The operands, in the order of the kernels' parameters.
struct Operands {
  const float* q;             // [n_tokens, q_stride]
  float* out;                 // [n_tokens, n_heads * value_dim]
  const char* cache;          // pages
  const Row* rows;            // [n_rows]
  const unsigned* blocks;     // block tables
  const float* slopes;        // [n_heads] or null
  const float* sinks;         // [n_heads] or null
  const uint16_t* buckets;    // [2 reach + 1] or null
  const float* bucket_bias;   // [n_buckets, n_heads] or null
  const float* of_queries;    // [n_tokens, n_heads, n_buckets] or null
  const float* of_keys;       // [n_tokens, n_heads, n_buckets] or null
  int n_buckets;              // numbers of a token and head
  int reach;
  int n_rows, n_heads, n_kv_heads, key_dim, value_dim, q_stride;
  int block_size;
  int key_groups;             // groups of 128 bytes of a key
  int own_groups;             // groups of a value, 0 if values are in keys
  int before, after;          // positions that a token sees on both sides
  float scale, softcap;       // softcap 0: none
};

#define ATTEND_PARAMETERS                                                                                      \
  const float *q, float *out, const char *cache, const Row *rows, const unsigned *blocks, const float *slopes, \
      const float *sinks, const uint16_t *buckets, const float *bucket_bias, const float *of_queries,          \
      const float *of_keys, int n_buckets, int reach, int n_rows, int n_heads, int n_kv_heads, int key_dim,    \
      int value_dim, int q_stride, int block_size, int key_groups, int own_groups, int before, int after,      \
      float scale, float softcap
#define ATTEND_OPERANDS                                                                                      \
  Operands {                                                                                                 \
    q, out, cache, rows, blocks, slopes, sinks, buckets, bucket_bias, of_queries, of_keys, n_buckets, reach, \
        n_rows, n_heads, n_kv_heads, key_dim, value_dim, q_stride, block_size, key_groups, own_groups,       \
        before, after, scale, softcap                                                                        \
  }

constexpr int GROUP_BYTES = 128;
constexpr float LOG2_E = 1.4426950408889634f;

// Positions from `start` to before `end`.
struct Range {
  int start, end;
};

// What the token at `position` sees.
__device__ __forceinline__ Range seen(const Operands& a, int position, int context_len) {
  return {max(position - a.before, 0), min(position + a.after + 1, context_len)};
}

// Bytes of a head in a block.
__device__ __forceinline__ size_t head_bytes(const Operands& a) {
  return (size_t)(a.key_groups + a.own_groups) * a.block_size * GROUP_BYTES;
}

// Where the values of a head start in its part of a block.
__device__ __forceinline__ size_t values_offset(const Operands& a) {
  return a.own_groups == 0 ? 0 : (size_t)a.key_groups * a.block_size * GROUP_BYTES;
}

// The first group of a position's key, and what its pieces of 16 bytes are permuted by.
struct Place {
  const char* key;
  int swizzle;
};

__device__ __forceinline__ Place place_of(const Operands& a, const Row& row, int kv_head, int position) {
  int block = a.blocks[row.first_block + position / a.block_size], at = position % a.block_size;
  const char* head = a.cache + ((size_t)block * a.n_kv_heads + kv_head) * head_bytes(a);
  return {head + at * GROUP_BYTES, at % 8};
}

// The last row that starts at `token` or before it.
__device__ __forceinline__ Row row_of(const Operands& a, int token) {
  int low = 0, high = a.n_rows;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (a.rows[middle].query_start <= token) low = middle; else high = middle;
  }
  return a.rows[low];
}

// True if scores are more than scaled products.
__device__ __forceinline__ bool is_shaped(const Operands& a) {
  return a.softcap > 0.0f || a.slopes != nullptr || a.bucket_bias != nullptr;
}

__device__ __forceinline__ int bucket_of(const Operands& a, int distance) {
  return a.buckets[min(max(distance + a.reach, 0), 2 * a.reach)];
}

// The score of a scaled product; `distance` is the position of the key less that of the query.
__device__ __forceinline__ float shaped(const Operands& a, float score, int head, int distance) {
  if (a.softcap > 0.0f) score = a.softcap * tanhf(score / a.softcap);
  if (a.slopes != nullptr) score += a.slopes[head] * (float)distance;
  if (a.bucket_bias != nullptr) score += a.bucket_bias[bucket_of(a, distance) * a.n_heads + head];
  return score;
}
