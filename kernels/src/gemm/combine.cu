// The results of experts, added up for each token.
#include "../cuda/kernel.cuh"

// out[token] = sum of weights[place] * computed[place] over the places of the token, in their order.
extern "C" __global__ void __launch_bounds__(256)
    combine_experts(const float* computed, const unsigned* places, const float* weights, float* out, int n_chosen, int d) {
  gdc_trigger();
  gdc_wait();
  size_t token = blockIdx.x;
  places += token * n_chosen;
  int end = min(d, ((int)blockIdx.y + 1) * 1024);
  for (int i = blockIdx.y * 1024 + threadIdx.x; i < end; i += blockDim.x) {
    float sum = 0.0f;
    for (int j = 0; j < n_chosen; j++) {
      size_t place = places[j];
      float y = computed[place * d + i];
      sum += weights ? weights[place] * y : y;
    }
    out[token * d + i] = sum;
  }
}
