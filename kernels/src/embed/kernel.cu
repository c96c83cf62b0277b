// Rows of a table, widened, and the ids that the step before drew.
#include "../cuda/rows.cuh"

namespace {

// A block copies a row. PIECE elements travel together: 4 where rows of the output start on 16 bytes, else 1.
template <class T, int PIECE>
__device__ __forceinline__ void embed(const T* table, const unsigned* ids, float* out, int n_rows, int n_cols,
                   int row_stride, int adds, float scale) {
  // Kernels after this one may read the step's inputs before their own wait, so it lets them start only now.
  gdc_wait();
  gdc_trigger();
  unsigned id = ids[blockIdx.x];
  bool is_inside = id < (unsigned)n_rows;
  const T* row = table + (is_inside ? (size_t)id * row_stride : 0);
  float* to = out + (size_t)blockIdx.x * n_cols;
  for (int at = threadIdx.x * PIECE; at < n_cols; at += blockDim.x * PIECE) {
    float values[PIECE];
    load_floats<PIECE>(row + at, values);
#pragma unroll
    for (int i = 0; i < PIECE; i++) {
      float value = is_inside ? values[i] : NAN;
      values[i] = adds ? to[at + i] + scale * value : value;
    }
    if constexpr (PIECE == 4) {
      store4(to + at, make_float4(values[0], values[1], values[2], values[3]));
    } else {
      to[at] = values[0];
    }
  }
}

} // namespace

#define EMBED(name, T, PIECE) \
  extern "C" __global__ void __launch_bounds__(128) \
    name(const T* table, const unsigned* ids, float* out, int n_rows, int n_cols, int row_stride, int adds, \
      float scale) { \
    embed<T, PIECE>(table, ids, out, n_rows, n_cols, row_stride, adds, scale); \
  }
EMBED(embed_f32, float, 1)
EMBED(embed_f16, f16, 1)
EMBED(embed_bf16, bf16, 1)
EMBED(embed_f32_pieces, float, 4)
EMBED(embed_f16_pieces, f16, 4)
EMBED(embed_bf16_pieces, bf16, 4)

// The first kernel of a step. A drawn token that its draw failed to draw is any id of the vocabulary.
extern "C" __global__ void __launch_bounds__(256)
  resolve_ids(unsigned* ids, const int* previous, const unsigned* drawn, int n_ids, int n_drawn) {
  gdc_trigger();
  gdc_wait();
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n_ids) return;
  int draw = previous[i];
  if (0 <= draw && draw < n_drawn) ids[i] = drawn[draw];
}
