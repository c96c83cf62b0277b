// Activation functions, alone and gated.
#include "../cuda/rows.cuh"
#include "activation.cuh"

extern "C" __global__ void __launch_bounds__(256)
  activate(float* x, unsigned n, int kind, float a, float b, float c) {
  gdc_trigger();
  gdc_wait();
  Activation of{kind, a, b, c};
  for_each(n, x, [=](unsigned, float x) { return activated(of, x, 1.0f); });
}

namespace {

__device__ __forceinline__ float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

} // namespace

extern "C" __global__ void __launch_bounds__(256) xielu(float* x, unsigned n, const float* curve) {
  gdc_trigger();
  Activation of{6, softplus(curve[0]), curve[2] + softplus(curve[1]), curve[2]};
  gdc_wait();
  for_each(n, x, [=](unsigned, float x) { return activated(of, x, 1.0f); });
}

extern "C" __global__ void __launch_bounds__(256)
  activate_gated(const float* gate_up, float* out, unsigned n, int width, int kind, float a, float b, float c) {
  gdc_trigger();
  gdc_wait();
  Activation of{kind, a, b, c};
  unsigned step = gridDim.x * blockDim.x;
  // Pieces of 4 where no piece reaches into the next row and every row starts on 16 bytes.
  bool in_pieces = width % 4 == 0 && is_aligned(gate_up) && is_aligned(out);
  unsigned piece = in_pieces ? 4 : 1;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n / piece; i += step) {
    unsigned at = i * piece, row = at / width;
    const float* gate = gate_up + (size_t)row * 2 * width + at % width;
    if (in_pieces) {
      float4 g = load4(gate), u = load4(gate + width);
      store4(out + at, make_float4(activated(of, g.x, u.x), activated(of, g.y, u.y), activated(of, g.z, u.z),
                    activated(of, g.w, u.w)));
    } else {
      out[at] = activated(of, gate[0], gate[width]);
    }
  }
}
