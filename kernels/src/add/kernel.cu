// The residual connection.
#include "../cuda/rows.cuh"

extern "C" __global__ void __launch_bounds__(256) add(float* x, const float* y, unsigned n, float scale) {
  gdc_trigger();
  gdc_wait();
  unsigned thread = blockIdx.x * blockDim.x + threadIdx.x, step = gridDim.x * blockDim.x;
  unsigned n_pieces = is_aligned(x) && is_aligned(y) ? n / 4 : 0;
  for (unsigned piece = thread; piece < n_pieces; piece += step) {
    float4 a = load4(x + piece * 4), b = load4(y + piece * 4);
    store4(x + piece * 4, make_float4(a.x + scale * b.x, a.y + scale * b.y, a.z + scale * b.z, a.w + scale * b.w));
  }
  for (unsigned i = n_pieces * 4 + thread; i < n; i += step) x[i] += scale * y[i];
}
