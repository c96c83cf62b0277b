// Rows moved or averaged.
#include "../cuda/rows.cuh"

extern "C" __global__ void __launch_bounds__(128)
  gather_rows(const float* x, const unsigned* rows, float* out, int n_rows, int d) {
  gdc_trigger();
  gdc_wait();
  unsigned row = rows[blockIdx.x];
  float* to = out + (size_t)blockIdx.x * d;
  if (row >= (unsigned)n_rows) {
    for (int i = threadIdx.x; i < d; i += blockDim.x) to[i] = NAN;
    return;
  }
  const float* from = x + (size_t)row * d;
  if (d % 4 == 0 && is_aligned(x) && is_aligned(out)) {
    for (int i = threadIdx.x * 4; i < d; i += blockDim.x * 4) store4(to + i, load4(from + i));
  } else {
    for (int i = threadIdx.x; i < d; i += blockDim.x) to[i] = from[i];
  }
}

extern "C" __global__ void __launch_bounds__(128)
  copy_heads(const float* x, float* out, int n_heads, int width, int x_stride, int x_first, int x_step,
       int out_stride, int out_first, int out_step) {
  gdc_trigger();
  gdc_wait();
  const float* from = x + (size_t)blockIdx.x * x_stride + x_first;
  float* to = out + (size_t)blockIdx.x * out_stride + out_first;
  for (int i = threadIdx.x; i < n_heads * width; i += blockDim.x) {
    int head = i / width, at = i % width;
    to[head * out_step + at] = from[head * x_step + at];
  }
}

// A thread adds up a column of a mean, in the order of its rows.
extern "C" __global__ void __launch_bounds__(128)
  mean_of_rows(const float* x, const unsigned* first, const unsigned* n_rows, float* out, int n_x, int d) {
  gdc_trigger();
  gdc_wait();
  unsigned from = first[blockIdx.x], n = n_rows[blockIdx.x];
  bool is_inside = n > 0 && from < (unsigned)n_x && n <= (unsigned)n_x - from;
  int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= d) return;
  const float* at = x + (size_t)from * d + column;
  float total = 0;
#pragma unroll 8
  for (unsigned row = 0; row < (is_inside ? n : 0); row++) total += at[(size_t)row * d];
  out[(size_t)blockIdx.x * d + column] = is_inside ? total / (float)n : NAN;
}
