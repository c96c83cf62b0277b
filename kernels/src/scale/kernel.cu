// Products with factors.
#include "../cuda/rows.cuh"

extern "C" __global__ void __launch_bounds__(256) scale(float* x, unsigned n, float factor) {
  gdc_trigger();
  gdc_wait();
  for_each(n, x, [=](unsigned, float x) { return x * factor; });
}

extern "C" __global__ void __launch_bounds__(256) multiply(float* x, unsigned n, const float* factor) {
  gdc_trigger();
  float by = *factor;
  gdc_wait();
  for_each(n, x, [=](unsigned, float x) { return x * by; });
}

extern "C" __global__ void __launch_bounds__(256)
  scale_columns(float* x, unsigned n, const float* factors, int n_factors) {
  gdc_trigger();
  gdc_wait();
  for_each(n, x, [=](unsigned i, float x) { return x * factors[i % n_factors]; });
}

extern "C" __global__ void __launch_bounds__(256) gate_rows(float* x, unsigned n, const float* gates, int d) {
  gdc_trigger();
  gdc_wait();
  for_each(n, x, [=](unsigned i, float x) { return x * (1.0f / (1.0f + expf(-gates[i / d]))); });
}

namespace {

// One over the length of a row, summed in f64 as on the CPU.
template <class T>
__device__ __forceinline__ void unit_scale(const T* weight, float* out, int n_cols, int row_stride) {
  __shared__ double sums[4];
  gdc_trigger();
  gdc_wait();
  const T* row = weight + (size_t)blockIdx.x * row_stride;
  double total = 0;
  for (int i = threadIdx.x; i < n_cols; i += blockDim.x) {
    double v = to_float(row[i]);
    total += v * v;
  }
  total = warp_sum(total);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = total;
  __syncthreads();
  if (threadIdx.x > 0) return;
  float length = (float)sqrt((sums[0] + sums[1]) + (sums[2] + sums[3]));
  out[blockIdx.x] = 1.0f / fmaxf(length, 1e-12f);
}

} // namespace

#define UNIT_SCALES(name, T) \
  extern "C" __global__ void __launch_bounds__(128) name(const T* weight, float* out, int n_cols, int row_stride) { \
    unit_scale(weight, out, n_cols, row_stride); \
  }
UNIT_SCALES(unit_scales_f32, float)
UNIT_SCALES(unit_scales_f16, f16)
UNIT_SCALES(unit_scales_bf16, bf16)
