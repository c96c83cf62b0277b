// Rows of activations as a product reads them: a block for each row of each head.
#include "row_norm.cuh"

namespace {

struct Source {
  const float* x;
  int row_stride, head_step;
  const unsigned* taken;
  const float* factors;
};

template <class T>
struct alignas(4 * sizeof(T)) Four {
  T of[4];
};

// out[head, row, i] = norm(x[taken[row], head, i]) * factors[row]
template <class T>
__device__ __forceinline__ void product_rows(const Source& from, const RowNorm& norm, T* out, int k, int out_stride) {
  gdc_trigger();
  gdc_wait();
  unsigned row = blockIdx.x, head = blockIdx.y;
  size_t taken = from.taken ? from.taken[row] : row;
  const float* x = from.x + taken * from.row_stride + (size_t)head * from.head_step;
  out += ((size_t)head * gridDim.x + row) * out_stride;   // starts on 16 bytes
  float factor = from.factors ? from.factors[row] : 1.0f;
  RowScale of = row_scale(norm, x, k);
  for (int i = 4 * threadIdx.x; i < k; i += 4 * blockDim.x) {
    float4 v = normed_four(norm, of, x, i, k);
    // Rows are whole pieces of 16 bytes, so that this stays in its own.
    *reinterpret_cast<Four<T>*>(out + i) = {from_float<T>(v.x * factor), from_float<T>(v.y * factor),
                                            from_float<T>(v.z * factor), from_float<T>(v.w * factor)};
  }
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
