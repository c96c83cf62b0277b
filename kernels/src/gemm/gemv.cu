// y = then(W . norm(x) + bias) of a few rows of activations. A warp takes two rows of the weight (a gate and its up, or two
// neighbours); the activations of a block are in shared memory, in f32, a chunk of columns after the other.
#include "pieces.cuh"
#include "row_norm.cuh"
#include "then.cuh"

namespace {

constexpr int N_WARPS = 8;
// Pieces of each row that a lane has in flight.
constexpr int DEPTH = 4;

template <class T>
struct Operands {
  const float* x;
  int x_stride, m;
  const T* weight;
  int w_stride, n, k;
  int half;   // rows of gates, 0 without
  const float* bias;
  float* out;
  int out_stride;
};

// The two rows of a warp.
struct RowPair {
  int first, second;
  bool has_first, has_second;
};

template <class T>
__device__ __forceinline__ RowPair row_pair(const Operands<T>& of) {
  int pair = blockIdx.x * N_WARPS + threadIdx.x / 32;
  if (of.half) return {pair, of.half + pair, pair < of.half, pair < of.half};
  return {2 * pair, 2 * pair + 1, 2 * pair < of.n, 2 * pair + 1 < of.n};
}

// Pieces `group * DEPTH ..` of a row that this lane multiplies; zeros behind its end.
template <class T>
__device__ __forceinline__ void load_group(const T* row, int n_pieces, int group, uint4 (&pieces)[DEPTH]) {
#pragma unroll
  for (int i = 0; i < DEPTH; i++) {
    int piece = (group * DEPTH + i) * 32 + threadIdx.x % 32;
    pieces[i] = piece < n_pieces ? __ldcs(reinterpret_cast<const uint4*>(row) + piece) : make_uint4(0, 0, 0, 0);
  }
}

// Where elements `i` to `i + 3` of a chunk are: four neighbours of a lane lie beside those of the next lane, so that reads of
// 16 bytes do not collide.
template <class T>
__device__ __forceinline__ int place(int i) {
  constexpr int STEP = 32 * PIECE<T>;
  int lane = i % STEP / PIECE<T>, j = i % PIECE<T>;
  return i / STEP * STEP + j / 4 * 128 + lane * 4 + j % 4;
}

template <class T, int M, int CHUNK>
__device__ __forceinline__ void multiply(const uint4 (&pieces)[2][DEPTH], const float* xs, float (&sums)[2][M]) {
#pragma unroll
  for (int i = 0; i < DEPTH; i++) {
    float w[2][PIECE<T>];
#pragma unroll
    for (int r = 0; r < 2; r++) unpack(pieces[r][i], w[r], T());
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int q = 0; q < PIECE<T> / 4; q++) {
        const float* at = xs + m * CHUNK + i * 32 * PIECE<T> + q * 128 + threadIdx.x % 32 * 4;
        float4 x = *reinterpret_cast<const float4*>(at);
#pragma unroll
        for (int r = 0; r < 2; r++) {
          const float* v = &w[r][4 * q];
          sums[r][m] = fmaf(v[0], x.x, fmaf(v[1], x.y, fmaf(v[2], x.z, fmaf(v[3], x.w, sums[r][m]))));
        }
      }
    }
  }
}

// Lane m writes the products of activations m.
template <class T, int M>
__device__ __forceinline__ void finish(const Operands<T>& of, const RowPair& rows, float (&sums)[2][M], const Then& then) {
  int lane = threadIdx.x % 32;
  float first = 0.0f, second = 0.0f;
#pragma unroll
  for (int m = 0; m < M; m++) {
    float of_first = warp_sum(sums[0][m]), of_second = warp_sum(sums[1][m]);
    if (lane == m) first = of_first, second = of_second;
  }
  if (lane >= of.m) return;
  float* out = of.out + (size_t)lane * of.out_stride;
  if (of.bias && rows.has_first) first += of.bias[rows.first];
  if (of.bias && rows.has_second) second += of.bias[rows.second];
  if (rows.has_first) write_product(then, out + rows.first, first, second);
  if (rows.has_second && !of.half) write_product(then, out + rows.second, second, 0.0f);
}

template <class T, int M>
__device__ __forceinline__ void gemv(const Operands<T>& of, const RowNorm& norm, const Then& then) {
  constexpr int CHUNK = 8192 / M;
  constexpr int GROUP = DEPTH * 32 * PIECE<T>;
  static_assert(CHUNK % GROUP == 0, "a chunk is whole groups");
  __shared__ __align__(16) float xs[M * CHUNK];
  gdc_trigger();
  RowPair rows = row_pair(of);
  int n_pieces = of.w_stride / PIECE<T>;
  const T* first = of.weight + (size_t)min(rows.first, of.n - 1) * of.w_stride;
  const T* second = of.weight + (size_t)min(rows.second, of.n - 1) * of.w_stride;
  uint4 pieces[2][DEPTH];
  load_group(first, n_pieces, 0, pieces[0]);
  load_group(second, n_pieces, 0, pieces[1]);
  gdc_wait();
  RowScale scales[M];
#pragma unroll
  for (int m = 0; m < M; m++) scales[m] = row_scale(norm, of.x + (size_t)min(m, of.m - 1) * of.x_stride, of.k);
  float sums[2][M] = {};
  for (int start = 0; start < of.w_stride; start += CHUNK) {
    int len = min(CHUNK, (of.w_stride - start + GROUP - 1) / GROUP * GROUP);
    __syncthreads();   // the chunk before is no longer read
    for (int i = 4 * threadIdx.x; i < len; i += 4 * blockDim.x) {
#pragma unroll
      for (int m = 0; m < M; m++) {
        const float* x = of.x + (size_t)min(m, of.m - 1) * of.x_stride;
        float4 four = normed_four(norm, scales[m], x, start + i, of.k);
        *reinterpret_cast<float4*>(xs + m * CHUNK + place<T>(i)) = four;
      }
    }
    __syncthreads();
    for (int at = 0; at < len; at += GROUP) {
      if (start + at > 0) {
        load_group(first, n_pieces, (start + at) / GROUP, pieces[0]);
        load_group(second, n_pieces, (start + at) / GROUP, pieces[1]);
      }
      multiply<T, M, CHUNK>(pieces, xs + at, sums);
    }
  }
  finish<T, M>(of, rows, sums, then);
}

}  // namespace

#define GEMV(M, NAME, T, BLOCKS)                                                                                    \
  extern "C" __global__ void __launch_bounds__(32 * N_WARPS, BLOCKS)                                                \
      gemv_##M##_##NAME(const float* x, int x_stride, int m, int norm, const float* norm_weight,                    \
                        const float* norm_bias, float eps, const T* weight, int w_stride, int n, int k, int half,   \
                        const float* bias, float* out, int out_stride, int then, float scale, int act, float a,     \
                        float b, float c) {                                                                         \
    gemv<T, M>({x, x_stride, m, weight, w_stride, n, k, half, bias, out, out_stride},                               \
               {norm, norm_weight, norm_bias, eps}, {then, scale, {act, a, b, c}});                                 \
  }

#define GEMVS(NAME, T) GEMV(1, NAME, T, 3) GEMV(2, NAME, T, 3) GEMV(4, NAME, T, 2) GEMV(8, NAME, T, 2)

GEMVS(f32, float)
GEMVS(f16, f16)
GEMVS(bf16, bf16)
