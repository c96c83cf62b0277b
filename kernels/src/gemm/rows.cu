// Rows of activations as a product reads them: a block for each row of each head.
#include "row_norm.cuh"

namespace {

struct Source {
  const float* x;
  int row_stride, head_step;
  const unsigned* taken;
  const float* factors;
};

// out[head, row, i] = norm(x[taken[row], head, i]) * factors[row]
template <class T>
__device__ __forceinline__ void product_rows(const Source& from, const RowNorm& norm, T* out, int k, int out_stride) {
  gdc_trigger();
  gdc_wait();
  unsigned row = blockIdx.x, head = blockIdx.y;
  size_t taken = from.taken ? from.taken[row] : row;
  const float* x = from.x + taken * from.row_stride + (size_t)head * from.head_step;
  out += ((size_t)head * gridDim.x + row) * out_stride;
  float factor = from.factors ? from.factors[row] : 1.0f;
  RowScale of = row_scale(norm, x, k);
  for (int i = threadIdx.x; i < k; i += blockDim.x) out[i] = from_float<T>(normed(norm, of, x[i], i) * factor);
}

}  // namespace

#define PRODUCT_ROWS(NAME, T)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                              \
      product_rows_##NAME(const float* x, int row_stride, int head_step, const unsigned* taken,                  \
                          const float* factors, int norm, const float* norm_weight, const float* norm_bias,      \
                          float eps, T* out, int k, int out_stride) {                                            \
    product_rows<T>({x, row_stride, head_step, taken, factors}, {norm, norm_weight, norm_bias, eps}, out, k,     \
                    out_stride);                                                                                 \
  }

PRODUCT_ROWS(f32, float)
PRODUCT_ROWS(f16, f16)
PRODUCT_ROWS(bf16, bf16)
