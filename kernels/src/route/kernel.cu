// The choice of experts: a warp for each token chooses, then a block for each expert finds its tokens.
#include "../cuda/kernel.cuh"

namespace {

constexpr int SOFTMAX = 0, SPARSE_MIXER = 2;

// As large as `value` is in the total order of floats; of equal values, the lower index is larger. Never all ones.
__device__ __forceinline__ unsigned long long ranked(float value, unsigned index) {
  unsigned bits = __float_as_uint(value);
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (unsigned long long)bits << 32 | (0xfffffffeu - index);
}

__device__ __forceinline__ unsigned index_of(unsigned long long rank) { return 0xfffffffeu - (unsigned)rank; }

// The largest of the warp's ranked values that is below `limit`.
__device__ __forceinline__ unsigned long long best_below(const float* values, int n, unsigned long long limit) {
  unsigned long long best = 0;
  for (int i = threadIdx.x % 32; i < n; i += 32) {
    unsigned long long rank = ranked(values[i], i);
    if (rank < limit && rank > best) best = rank;
  }
  return warp_max(best);
}

struct Router {
  int n_experts, n_chosen, scoring;
  float jitter;
  int n_groups, n_kept, n_counted;
};

// Shared memory of a warp; each is [n_experts].
struct Memory {
  float *scores, *ranks, *group_ranks, *values;
  unsigned* ids;
};

__device__ __forceinline__ void score(const Router& of, const float* logits, float* scores) {
  unsigned lane = threadIdx.x % 32;
  if (of.scoring != SOFTMAX) {
    for (int i = lane; i < of.n_experts; i += 32) scores[i] = 1.0f / (1.0f + expf(-logits[i]));
    return;
  }
  float most = -INFINITY, total = 0.0f;
  for (int i = lane; i < of.n_experts; i += 32) most = fmaxf(most, logits[i]);
  most = warp_max(most);
  for (int i = lane; i < of.n_experts; i += 32) total += scores[i] = expf(logits[i] - most);
  total = warp_sum(total);
  for (int i = lane; i < of.n_experts; i += 32) scores[i] /= total;
}

// The best, or the sum of the best two, of a group's ranks.
__device__ __forceinline__ float group_rank(const float* ranks, int size, int n_counted) {
  unsigned long long best = 0, second = 0;
  for (int i = 0; i < size; i++) {
    unsigned long long rank = ranked(ranks[i], i);
    if (rank > best) second = best, best = rank;
    else if (rank > second) second = rank;
  }
  float sum = ranks[index_of(best)];
  return n_counted > 1 && second ? sum + ranks[index_of(second)] : sum;
}

// Takes the experts of all but the best groups out of the choice.
__device__ __forceinline__ void restrict_groups(const Router& of, const Memory& memory) {
  unsigned lane = threadIdx.x % 32;
  int size = of.n_experts / of.n_groups;
  for (int g = lane; g < of.n_groups; g += 32) {
    memory.group_ranks[g] = group_rank(memory.ranks + g * size, size, of.n_counted);
    memory.ids[g] = 0;
  }
  __syncwarp();
  unsigned long long last = ~0ull;
  for (int i = 0; i < of.n_kept; i++) {
    last = best_below(memory.group_ranks, of.n_groups, last);
    if (lane == 0) memory.ids[index_of(last)] = 1;
  }
  __syncwarp();
  for (int i = lane; i < of.n_experts; i += 32) {
    if (!memory.ids[i / size]) memory.ranks[i] = -INFINITY;
  }
  __syncwarp();
}

// Experts by scores, and the sum of the chosen ones' scores.
__device__ __forceinline__ float choose(const Router& of, const float* logits, const float* bias, const Memory& memory) {
  unsigned lane = threadIdx.x % 32;
  score(of, logits, memory.scores);
  for (int i = lane; i < of.n_experts; i += 32) memory.ranks[i] = memory.scores[i] + (bias ? bias[i] : 0.0f);
  __syncwarp();
  if (of.n_groups) restrict_groups(of, memory);
  float total = 0.0f;
  unsigned long long last = ~0ull;
  for (int j = 0; j < of.n_chosen; j++) {
    last = best_below(memory.ranks, of.n_experts, last);
    unsigned expert = index_of(last);
    float value = memory.scores[expert];
    total += value;
    if (lane == 0) memory.ids[j] = expert, memory.values[j] = value;
  }
  return total;
}

// Two experts of a sparse mixer, each weighed among the logits near it; the first takes no part in the second's weight.
__device__ __forceinline__ float mix(const Router& of, const float* logits, const Memory& memory) {
  unsigned lane = threadIdx.x % 32, taken = 0xffffffffu;
  float sum = 0.0f;
  unsigned long long last = ~0ull;
  for (int j = 0; j < of.n_chosen; j++) {
    last = best_below(logits, of.n_experts, last);
    unsigned expert = index_of(last);
    float top = logits[expert], total = 0.0f;
    for (unsigned i = lane; i < (unsigned)of.n_experts; i += 32) {
      // Zero is near zero, although their relative distance is no number.
      float distance = (top - logits[i]) / fmaxf(fabsf(logits[i]), top);
      if (i != taken && !(distance > 2.0f * of.jitter)) total += expf(logits[i] - top);
    }
    float value = 1.0f / warp_sum(total);
    sum += value;
    taken = expert;
    if (lane == 0) memory.ids[j] = expert, memory.values[j] = value;
  }
  return sum;
}

}  // namespace

// The experts of each token, ascending, with their weights.
extern "C" __global__ void __launch_bounds__(128)
    route_choose(const float* logits, const float* bias, unsigned* experts, float* weights, int n_tokens, int n_experts,
                 int n_chosen, int scoring, float jitter, int n_groups, int n_kept, int n_counted, int renormalise,
                 float scale) {
  DYN_SMEM(float, memory);
  gdc_trigger();
  gdc_wait();
  unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int token = blockIdx.x * (blockDim.x / 32) + warp;
  if (token >= n_tokens) return;
  float* own = memory + (size_t)warp * 5 * n_experts;
  Memory of_warp{own, own + n_experts, own + 2 * n_experts, own + 3 * n_experts,
                 reinterpret_cast<unsigned*>(own + 4 * n_experts)};
  Router router{n_experts, n_chosen, scoring, jitter, n_groups, n_kept, n_counted};
  logits += (size_t)token * n_experts;
  float total = scoring == SPARSE_MIXER ? mix(router, logits, of_warp) : choose(router, logits, bias, of_warp);
  float factor = renormalise ? scale / total : scale;
  __syncwarp();
  for (int j = lane; j < n_chosen; j += 32) {
    int place = 0;
    for (int i = 0; i < n_chosen; i++) place += of_warp.ids[i] < of_warp.ids[j];
    experts[(size_t)token * n_chosen + place] = of_warp.ids[j];
    weights[(size_t)token * n_chosen + place] = of_warp.values[j] * factor;
  }
}

// Choices by expert: block e finds those of expert e, in the order of tokens.
extern "C" __global__ void __launch_bounds__(256)
    route_sort(const unsigned* experts, const float* expert_weights, unsigned* starts, unsigned* tokens, float* weights,
               unsigned* places, int n, int n_chosen) {
  __shared__ unsigned of_warp[8];
  gdc_trigger();
  gdc_wait();
  unsigned expert = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  unsigned n_before = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) n_before += experts[i] < expert;
  unsigned place = block_sum(n_before);
  if (threadIdx.x == 0) starts[expert] = place;
  if (threadIdx.x == 0 && expert + 1 == gridDim.x) starts[gridDim.x] = n;
  for (int start = 0; start < n; start += blockDim.x) {
    int i = start + threadIdx.x;
    bool is_own = i < n && experts[i] == expert;
    unsigned own = __ballot_sync(0xffffffffu, is_own);
    if (lane == 0) of_warp[warp] = __popc(own);
    __syncthreads();
    unsigned total = 0, before = __popc(own & ((1u << lane) - 1));
    for (unsigned w = 0; w < 8; w++) {
      before += w < warp ? of_warp[w] : 0;
      total += of_warp[w];
    }
    if (is_own) {
      tokens[place + before] = i / n_chosen;
      weights[place + before] = expert_weights[i];
      places[i] = place + before;
    }
    place += total;
    __syncthreads();   // the next turn writes `of_warp`
  }
}
