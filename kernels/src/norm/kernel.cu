// Norms of vectors, each in a row of x: of the vector (rms), or of the vector without its mean (layer); times a weight,
// plus a bias. The order of a sum depends on the length of the vector only.
#include "../cuda/rows.cuh"

namespace {

struct Norm {
  const float* x;
  float* out;
  const float* weight;
  const float* bias;
  int n_vectors, n_heads, head_dim, row_stride, first;
  // Elements of weight and bias from one head to the next; 0 if all heads share them.
  int weight_step, bias_step;
  float eps;
  int takes_mean;

  __device__ size_t at(int vector) const {
    return (size_t)(vector / n_heads) * row_stride + first + (size_t)(vector % n_heads) * head_dim;
  }
};

__device__ __forceinline__ float sum4(float4 v) { return (v.x + v.y) + (v.z + v.w); }

// Sums over THREADS neighbouring threads: a warp, or the whole block. Every thread gets the sum.
template <int THREADS> __device__ __forceinline__ float sum_over(float v) {
  if constexpr (THREADS == 32) return warp_sum(v);
  return block_sum(v);
}

// THREADS threads take a vector of at most 4 * N * THREADS elements, which stay in registers.
template <int THREADS, int N> __device__ __forceinline__ void norm_in_registers(const Norm& op) {
  gdc_trigger();
  int vector = blockIdx.x * (blockDim.x / THREADS) + threadIdx.x / THREADS;
  bool is_inside = vector < op.n_vectors;
  int lane = threadIdx.x % THREADS, head = vector % op.n_heads;
  float4 weights[N];
#pragma unroll
  for (int i = 0; i < N; i++) {
    int at = (i * THREADS + lane) * 4;
    bool is_read = N <= 4 && op.weight && is_inside && at < op.head_dim;
    weights[i] = is_read ? load4(op.weight + head * op.weight_step + at) : make_float4(1, 1, 1, 1);
  }
  gdc_wait();
  if (!is_inside) return;

  size_t start = op.at(vector);
  float4 values[N];
  float total = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    int at = (i * THREADS + lane) * 4;
    values[i] = at < op.head_dim ? load4(op.x + start + at) : make_float4(0, 0, 0, 0);
    total += sum4(values[i]);
  }
  if (op.takes_mean) {
    float mean = sum_over<THREADS>(total) / op.head_dim;
#pragma unroll
    for (int i = 0; i < N; i++) {
      if ((i * THREADS + lane) * 4 >= op.head_dim) continue;
      float4& v = values[i];
      v = make_float4(v.x - mean, v.y - mean, v.z - mean, v.w - mean);
    }
  }
  float squares = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    float4 v = values[i];
    squares += sum4(make_float4(v.x * v.x, v.y * v.y, v.z * v.z, v.w * v.w));
  }
  float scale = 1.0f / sqrtf(sum_over<THREADS>(squares) / op.head_dim + op.eps);
#pragma unroll
  for (int i = 0; i < N; i++) {
    int at = (i * THREADS + lane) * 4;
    if (at >= op.head_dim) continue;
    float4 v = values[i], w = weights[i];
    if (N > 4 && op.weight) w = load4(op.weight + head * op.weight_step + at);
    v = make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
    if (op.bias) {
      float4 b = load4(op.bias + head * op.bias_step + at);
      v = make_float4(v.x + b.x, v.y + b.y, v.z + b.z, v.w + b.w);
    }
    store4(op.out + start + at, v);
  }
}

// A block takes a vector of any length and alignment, and reads it once for each pass.
template <int THREADS> __device__ __forceinline__ void norm_of_any(const Norm& op) {
  gdc_trigger();
  gdc_wait();
  int vector = blockIdx.x, head = vector % op.n_heads;
  const float* x = op.x + op.at(vector);
  float* out = op.out + op.at(vector);
  float mean = 0;
  if (op.takes_mean) {
    float total = 0;
    for (int i = threadIdx.x; i < op.head_dim; i += THREADS) total += x[i];
    mean = block_sum(total) / op.head_dim;
  }
  float squares = 0;
  for (int i = threadIdx.x; i < op.head_dim; i += THREADS) squares += (x[i] - mean) * (x[i] - mean);
  float scale = 1.0f / sqrtf(block_sum(squares) / op.head_dim + op.eps);
  for (int i = threadIdx.x; i < op.head_dim; i += THREADS) {
    float v = (x[i] - mean) * scale;
    if (op.weight) v *= op.weight[head * op.weight_step + i];
    if (op.bias) v += op.bias[head * op.bias_step + i];
    out[i] = v;
  }
}

} // namespace

#define NORM_PARAMS \
  const float* x, float* out, const float* weight, const float* bias, int n_vectors, int n_heads, int head_dim, \
    int row_stride, int first, int weight_step, int bias_step, float eps, int takes_mean
#define NORM_ARGS \
  Norm { x, out, weight, bias, n_vectors, n_heads, head_dim, row_stride, first, weight_step, bias_step, eps, takes_mean }

extern "C" __global__ void __launch_bounds__(128) norm_warp(NORM_PARAMS) { norm_in_registers<32, 4>(NORM_ARGS); }
extern "C" __global__ void __launch_bounds__(256) norm_block_4(NORM_PARAMS) { norm_in_registers<256, 4>(NORM_ARGS); }
extern "C" __global__ void __launch_bounds__(256) norm_block_16(NORM_PARAMS) { norm_in_registers<256, 16>(NORM_ARGS); }
extern "C" __global__ void __launch_bounds__(256) norm_any(NORM_PARAMS) { norm_of_any<256>(NORM_ARGS); }
