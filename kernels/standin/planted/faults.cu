// Kernels with planted faults, each beside the right one: `FAULT` is true in the wrong one.
#include "kernel.cuh"

#define BOTH(NAME, PARAMETERS, ARGUMENTS)                                     \
  extern "C" __global__ void NAME PARAMETERS { NAME##_body<false> ARGUMENTS; } \
  extern "C" __global__ void NAME##_wrong PARAMETERS { NAME##_body<true> ARGUMENTS; }

// ---- overlap with the kernel before ----

// out[i] = 2 in[i]. FAULT: reads before gdc_wait.
template <bool FAULT>
__device__ void twice_body(float* out, const float* in, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  gdc_trigger();
  float early = FAULT && i < n ? in[i] : 0.0f;
  gdc_wait();
  if (i < n) out[i] = 2.0f * (FAULT ? early : in[i]);
}
BOTH(twice, (float* out, const float* in, int n), (out, in, n))

// As `twice`. FAULT: threads behind the end return without gdc_wait.
template <bool FAULT>
__device__ void returns_body(float* out, const float* in, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (FAULT && i >= n) return;
  gdc_wait();
  if (i < n) out[i] = 2.0f * in[i];
}
BOTH(returns, (float* out, const float* in, int n), (out, in, n))

// Clears a counter. FAULT: before gdc_wait.
template <bool FAULT>
__device__ void clear_body(float* out, int n) {
  int i = threadIdx.x;
  if (!FAULT) gdc_wait();
  if (i < n) out[i] = 0.0f;
  if (FAULT) gdc_wait();
}
BOTH(clear, (float* out, int n), (out, n))

// As `twice`, by cp.async. FAULT: issued before gdc_wait.
template <bool FAULT>
__device__ void copies_early_body(float* out, const float* in, int n) {
  DYN_SMEM(float, tile);
  int i = 4 * threadIdx.x;
  if (!FAULT) gdc_wait();
  if (i < n) cp_async16(tile + i, in + i);
  cp_async_commit();
  if (FAULT) gdc_wait();
  cp_async_wait<0>();
  for (int j = i; j < i + 4 && j < n; j++) out[j] = 2.0f * tile[j];
}
BOTH(copies_early, (float* out, const float* in, int n), (out, in, n))

// ---- waits in a kernel ----

// out[i] = in[i] through shared memory. FAULT: no cp_async_wait.
template <bool FAULT>
__device__ void cp_async_copy_body(float* out, const float* in) {
  DYN_SMEM(float, tile);
  cp_async16(tile + 4 * threadIdx.x, in + 4 * threadIdx.x);
  cp_async_commit();
  if (!FAULT) cp_async_wait<0>();
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}
BOTH(cp_async_copy, (float* out, const float* in), (out, in))

// Each thread reads what its neighbour wrote. FAULT: no __syncthreads.
template <bool FAULT>
__device__ void neighbour_body(float* out, const float* in) {
  DYN_SMEM(float, tile);
  tile[threadIdx.x] = in[threadIdx.x];
  if (!FAULT) __syncthreads();
  out[threadIdx.x] = tile[(threadIdx.x + 37) % blockDim.x];
}
BOTH(neighbour, (float* out, const float* in), (out, in))

// A ring of two stages: a warp loads `n_tiles` tiles of 128 floats by bulk copies, another adds them up.
enum RingFault { RING_RIGHT, RING_NO_FULL_WAIT, RING_NO_EMPTY_WAIT, RING_EARLY_ARRIVE, RING_TWO_ARRIVALS };

template <RingFault FAULT>
__device__ void ring(float* out, const float* in, int n_tiles) {
  constexpr int STAGES = 2, TILE = 128;
  DYN_SMEM(float, tiles);
  __shared__ uint64_t full[STAGES], empty[STAGES];
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      mbar_init(&full[s], 1);
      mbar_init(&empty[s], 1);
    }
    mbar_init_fence();
  }
  __syncthreads();
  int lane = threadIdx.x % 32;
  if (threadIdx.x < 32) {
    for (int t = 0; lane == 0 && t < n_tiles; t++) {
      int s = t % STAGES;
      if (t >= STAGES && FAULT != RING_NO_EMPTY_WAIT) mbar_wait(&empty[s], (t / STAGES - 1) & 1);
      mbar_expect(&full[s], TILE * sizeof(float));
      bulk_load(tiles + s * TILE, in + t * TILE, TILE * sizeof(float), &full[s]);
    }
    return;
  }
  float sum = 0.0f;
  for (int t = 0; t < n_tiles; t++) {
    int s = t % STAGES;
    if (FAULT != RING_NO_FULL_WAIT) mbar_wait(&full[s], (t / STAGES) & 1);
    if (FAULT == RING_EARLY_ARRIVE) {
      __syncwarp();
      if (lane == 0) mbar_arrive(&empty[s]);
      __syncwarp();
    }
    for (int i = lane; i < TILE; i += 32) {
      sum += tiles[s * TILE + i];
      __syncwarp();
    }
    if (lane == 0 && FAULT != RING_EARLY_ARRIVE) mbar_arrive(&empty[s]);
    if (lane == 0 && FAULT == RING_TWO_ARRIVALS) mbar_arrive(&empty[s]);
  }
  sum = warp_sum(sum);
  if (lane == 0) out[0] = sum;
}
extern "C" __global__ void ring_right(float* out, const float* in, int n) { ring<RING_RIGHT>(out, in, n); }
extern "C" __global__ void ring_no_full_wait(float* out, const float* in, int n) { ring<RING_NO_FULL_WAIT>(out, in, n); }
extern "C" __global__ void ring_no_empty_wait(float* out, const float* in, int n) { ring<RING_NO_EMPTY_WAIT>(out, in, n); }
extern "C" __global__ void ring_early_arrive(float* out, const float* in, int n) { ring<RING_EARLY_ARRIVE>(out, in, n); }
extern "C" __global__ void ring_two_arrivals(float* out, const float* in, int n) { ring<RING_TWO_ARRIVALS>(out, in, n); }

// FAULT: the barrier is never initialised.
template <bool FAULT>
__device__ void barrier_body(float* out) {
  __shared__ uint64_t bar;
  if (threadIdx.x == 0 && !FAULT) mbar_init(&bar, blockDim.x);
  __syncthreads();
  mbar_arrive(&bar);
  mbar_wait(&bar, 0);
  out[threadIdx.x] = 1.0f;
}
BOTH(barrier, (float* out), (out))

// Two warps in turns by named barriers. FAULT: the second does not wait.
template <bool FAULT>
__device__ void turns_body(float* out) {
  DYN_SMEM(float, cell);
  bool first = threadIdx.x < 32;
  if (first) {
    if (threadIdx.x == 0) cell[0] = 7.0f;
    bar_arrive(1, 64);
  } else {
    if (!FAULT) bar_sync(1, 64);
    if (threadIdx.x == 32) out[0] = cell[0];
    if (FAULT) bar_sync(1, 64);
  }
}
BOTH(turns, (float* out), (out))

// ---- data ----

// out = sum of p[i] v[i], p 0 behind the end. FAULT: v is read behind the end too, and 0 times NaN is NaN.
template <bool FAULT>
__device__ void tail_body(float* out, const float* values, int length, int padded) {
  float sum = 0.0f;
  for (int i = threadIdx.x; i < padded; i += 32) {
    float p = i < length ? 1.0f : 0.0f;
    float v = FAULT || i < length ? values[i] : 0.0f;
    sum += p * v;
  }
  sum = warp_sum(sum);
  if (threadIdx.x == 0) out[0] = sum;
}
BOTH(tail, (float* out, const float* values, int length, int padded), (out, values, length, padded))

// out[i] = page table[i]'s first value. FAULT: the table is off by one.
template <bool FAULT>
__device__ void pages_body(float* out, const float* pages, const int* table, int n) {
  int i = threadIdx.x;
  if (i < n) out[i] = pages[table[i + (FAULT ? 1 : 0)] * 16];
}
BOTH(pages, (float* out, const float* pages, const int* table, int n), (out, pages, table, n))

// The last block to arrive adds the others' sums. FAULT: it does not reset the counter.
template <bool FAULT>
__device__ void arrivals_body(float* out, float* partials, unsigned* arrived, const float* in) {
  partials[blockIdx.x] = in[blockIdx.x];
  __threadfence();
  if (atomicAdd(arrived, 1u) != gridDim.x - 1) return;
  float sum = 0.0f;
  for (unsigned b = 0; b < gridDim.x; b++) sum += __ldcg(partials + b);
  out[0] = sum;
  if (!FAULT) *arrived = 0;
}
BOTH(arrivals, (float* out, float* partials, unsigned* arrived, const float* in), (out, partials, arrived, in))

// Row r writes value r + 1 in its slot; pad rows have slot -1.
extern "C" __global__ void write_slots(float* cache, const int* slots, int n) {
  int row = threadIdx.x;
  if (row < n && slots[row] >= 0) cache[slots[row]] = float(row + 1);
}

// FAULT: one element too many.
template <bool FAULT>
__device__ void bounds_body(float* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n + (FAULT ? 64 : 0)) out[i] = 1.0f;
}
BOTH(bounds, (float* out, int n), (out, n))

// Dynamic shared memory. FAULT: written behind its end.
template <bool FAULT>
__device__ void shared_bounds_body(float* out, int n) {
  DYN_SMEM(float, tile);
  tile[threadIdx.x + (FAULT ? n : 0)] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}
BOTH(shared_bounds, (float* out, int n), (out, n))

// FAULT: an index outside of a fixed-size array.
template <bool FAULT>
__device__ void array_body(float* out, int index) {
  float values[8];
  for (int i = 0; i < 8; i++) values[i] = float(i);
  out[0] = values[index + (FAULT ? 8 : 0)];
}
BOTH(array, (float* out, int index), (out, index))

// ---- barriers and loops ----

// FAULT: half of the threads come to another barrier.
template <bool FAULT>
__device__ void diverge_body(float* out) {
  if (FAULT && threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1.0f;
}
BOTH(diverge, (float* out), (out))

// FAULT: one warp never comes to the barrier and waits for the others elsewhere.
template <bool FAULT>
__device__ void missing_body(float* out) {
  __shared__ uint64_t bar;
  if (threadIdx.x == 0) mbar_init(&bar, 1);
  __syncthreads();
  if (FAULT && threadIdx.x < 32) mbar_wait(&bar, 0);
  else __syncthreads();
  out[threadIdx.x] = 1.0f;
}
BOTH(missing, (float* out), (out))

extern "C" __global__ void endless(float* out) {
  for (volatile int i = 0; i < 1; i *= 1) {
  }
  out[0] = 1.0f;
}

extern "C" __global__ void divides(int* out, int by) { out[0] = 7 / by; }

extern "C" __global__ void __launch_bounds__(64) bounded(float* out) { out[threadIdx.x] = 1.0f; }
