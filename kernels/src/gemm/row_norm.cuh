// A norm of rows of activations before a product. Rows are read four elements at a time.
#pragma once
#include "../cuda/kernel.cuh"

struct RowNorm {
  int kind;   // 0 none, 1 root mean square, 2 layer
  const float* weight;
  const float* bias;
  float eps;
};

// What a row is shifted by and multiplied with.
struct RowScale {
  float mean, scale;
};

// Elements `i` to `i + 3` of a row; zeros behind its end.
__device__ __forceinline__ float4 load_four(const float* x, int i, int k) {
  if (i + 4 <= k && reinterpret_cast<size_t>(x + i) % 16 == 0) return *reinterpret_cast<const float4*>(x + i);
  return make_float4(i < k ? x[i] : 0.0f, i + 1 < k ? x[i + 1] : 0.0f, i + 2 < k ? x[i + 2] : 0.0f,
                     i + 3 < k ? x[i + 3] : 0.0f);
}

// The sum of `of(x[i])` over a row, by all threads of a block.
template <class F>
__device__ __forceinline__ float row_sum(const float* x, int k, F of) {
  float sum = 0.0f;
#pragma unroll 4
  for (int i = 4 * threadIdx.x; i < k; i += 4 * blockDim.x) {
    float4 v = load_four(x, i, k);
    sum += of(v.x);
    if (i + 1 < k) sum += of(v.y);
    if (i + 2 < k) sum += of(v.z);
    if (i + 3 < k) sum += of(v.w);
  }
  return block_sum(sum);
}

// By all threads of a block.
__device__ __forceinline__ RowScale row_scale(const RowNorm& norm, const float* x, int k) {
  if (norm.kind == 0) return {0.0f, 1.0f};
  float mean = norm.kind == 2 ? row_sum(x, k, [](float v) { return v; }) / k : 0.0f;
  float squares = row_sum(x, k, [=](float v) { return (v - mean) * (v - mean); });
  return {mean, 1.0f / sqrtf(squares / k + norm.eps)};
}

// Elements `i` to `i + 3` of a row after the norm; zeros behind its end.
__device__ __forceinline__ float4 normed_four(const RowNorm& norm, const RowScale& of, const float* x, int i, int k) {
  float4 v = load_four(x, i, k);
  if (norm.kind == 0) return v;
  v = make_float4((v.x - of.mean) * of.scale, (v.y - of.mean) * of.scale, (v.z - of.mean) * of.scale,
                  (v.w - of.mean) * of.scale);
  if (norm.weight) {
    float4 w = load_four(norm.weight, i, k);
    v = make_float4(v.x * w.x, v.y * w.y, v.z * w.z, v.w * w.w);
  }
  if (norm.bias) {
    float4 b = load_four(norm.bias, i, k);
    v = make_float4(v.x + b.x, v.y + b.y, v.z + b.z, v.w + b.w);
  }
  return make_float4(i < k ? v.x : 0.0f, i + 1 < k ? v.y : 0.0f, i + 2 < k ? v.z : 0.0f, i + 3 < k ? v.w : 0.0f);
}
