// A norm of rows of activations before a product.
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

// By all threads of a block.
__device__ __forceinline__ RowScale row_scale(const RowNorm& norm, const float* x, int k) {
  if (norm.kind == 0) return {0.0f, 1.0f};
  float mean = 0.0f;
  if (norm.kind == 2) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < k; i += blockDim.x) sum += x[i];
    mean = block_sum(sum) / k;
  }
  float squares = 0.0f;
  for (int i = threadIdx.x; i < k; i += blockDim.x) squares = fmaf(x[i] - mean, x[i] - mean, squares);
  return {mean, 1.0f / sqrtf(block_sum(squares) / k + norm.eps)};
}

// Element `i` of the row after the norm.
__device__ __forceinline__ float normed(const RowNorm& norm, const RowScale& of, float x, int i) {
  if (norm.kind == 0) return x;
  float y = (x - of.mean) * of.scale;
  if (norm.weight) y *= norm.weight[i];
  return norm.bias ? y + norm.bias[i] : y;
}
