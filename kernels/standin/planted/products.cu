// Tensor core products of one tile, and what must be waited for and fenced.
#include "kernel.cuh"

// d[16, 8] = a[16, 16] . b[8, 16]^T with ldmatrix; `b` is read transposed where TRANS.
template <class T, bool TRANS>
__device__ void warp_product(float* d, const T* a, const T* b) {
  DYN_SMEM(T, tile);   // a, then b
  for (int i = threadIdx.x; i < 256; i += 32) tile[i] = a[i];
  for (int i = threadIdx.x; i < 128; i += 32) tile[256 + i] = b[i];
  __syncwarp();
  int lane = threadIdx.x;
  uint32_t fa[4], fb[2];
  ldmatrix_x4(fa, tile + lane % 16 * 16 + lane / 16 * 8);
  if (TRANS) ldmatrix_x2_trans(fb, tile + 256 + lane % 16 * 8);          // b as [16, 8]
  else ldmatrix_x2(fb, tile + 256 + lane % 8 * 16 + lane / 8 % 2 * 8);   // b as [8, 16]
  float sums[4] = {0, 0, 0, 0};
  mma16816<T>(sums, fa, fb[0], fb[1]);
  for (int i = 0; i < 4; i++) d[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sums[i];
}
extern "C" __global__ void warp_product_bf16(float* d, const bf16* a, const bf16* b) { warp_product<bf16, false>(d, a, b); }
extern "C" __global__ void warp_product_f16(float* d, const f16* a, const f16* b) { warp_product<f16, false>(d, a, b); }
extern "C" __global__ void warp_product_trans(float* d, const bf16* a, const bf16* b) { warp_product<bf16, true>(d, a, b); }

// The box of a tensor map at (x, y, z, w, v) to out, in the order of shared memory. FAULT: no wait.
template <bool FAULT>
__device__ void tile_body(uint16_t* out, const CUtensorMap& map, int rank, const int* at, int bytes) {
  DYN_SMEM(unsigned char, tile);
  __shared__ uint64_t bar;
  if (threadIdx.x == 0) {
    mbar_init(&bar, 1);
    mbar_init_fence();
    mbar_expect(&bar, bytes);
    uint64_t policy = policy_evict_first();
    if (rank == 2) tma_load_2d(tile, &map, &bar, at[0], at[1], policy);
    if (rank == 3) tma_load_3d(tile, &map, &bar, at[0], at[1], at[2], policy);
    if (rank == 4) tma_load_4d(tile, &map, &bar, at[0], at[1], at[2], at[3], policy);
    if (rank == 5) tma_load_5d(tile, &map, &bar, at[0], at[1], at[2], at[3], at[4], policy);
  }
  __syncthreads();
  if (!FAULT) mbar_wait(&bar, 0);
  for (int i = threadIdx.x; i < bytes / 2; i += blockDim.x) out[i] = reinterpret_cast<const uint16_t*>(tile)[i];
}
extern "C" __global__ void tile(uint16_t* out, const __grid_constant__ CUtensorMap map, int rank, const int* at, int bytes) {
  tile_body<false>(out, map, rank, at, bytes);
}
extern "C" __global__ void tile_wrong(uint16_t* out, const __grid_constant__ CUtensorMap map, int rank, const int* at, int bytes) {
  tile_body<true>(out, map, rank, at, bytes);
}

// d[64, 64] = a[64, 64] . b, all bf16, written into swizzled tiles by the threads. b is [64 n, 64 k], or [64 k, 64 n] where
// MN_MAJOR. A comes from registers where REGISTERS.
enum WgmmaFault { WGMMA_RIGHT, WGMMA_NO_WAIT, WGMMA_NO_FENCE, WGMMA_NO_PROXY_FENCE };

template <WgmmaFault FAULT, bool REGISTERS, bool MN_MAJOR>
__device__ void group_product(float* d, const bf16* a, const bf16* b) {
  DYN_SMEM(bf16, tiles);   // a, then b, 8 KiB each
  int t = threadIdx.x, warp = t / 32, lane = t % 32;
  for (int i = t; i < 64 * 64; i += 128) {
    int row = i / 64, piece = i % 64 / 8;
    int to = row * 64 + (piece ^ row % 8) * 8 + i % 8;
    tiles[to] = a[i];
    tiles[64 * 64 + to] = b[i];
  }
  if (FAULT != WGMMA_NO_PROXY_FENCE) fence_async();
  __syncthreads();
  float sums[32];
  if (FAULT != WGMMA_NO_FENCE) wgmma_fence();
  for (int k = 0; k < 64; k += 16) {
    uint64_t right = MN_MAJOR ? desc_mn_major(tiles + 64 * 64 + k * 64, 8192, 1024) : desc_k_major(tiles + 64 * 64) + k / 8;
    if (REGISTERS) {
      uint32_t rows[4];
      for (int i = 0; i < 4; i++) {
        const bf16* pair = a + (warp * 16 + lane / 4 + i % 2 * 8) * 64 + k + lane % 4 * 2 + i / 2 * 8;
        rows[i] = *reinterpret_cast<const uint32_t*>(pair);
      }
      wgmma<bf16, MN_MAJOR>(sums, rows, right, k > 0);
    } else {
      wgmma<bf16, 0, MN_MAJOR>(sums, desc_k_major(tiles) + k / 8, right, k > 0);
    }
  }
  wgmma_commit();
  if (FAULT != WGMMA_NO_WAIT) wgmma_wait<0>();
  for (int i = 0; i < 32; i++) d[(warp * 16 + lane / 4 + i / 2 % 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i];
  if (FAULT == WGMMA_NO_WAIT) wgmma_wait<0>();
}
#define GROUP_PRODUCT(NAME, FAULT, REGISTERS, MN_MAJOR) \
  extern "C" __global__ void __launch_bounds__(128) NAME(float* d, const bf16* a, const bf16* b) { group_product<FAULT, REGISTERS, MN_MAJOR>(d, a, b); }
GROUP_PRODUCT(group_product_shared, WGMMA_RIGHT, false, false)
GROUP_PRODUCT(group_product_registers, WGMMA_RIGHT, true, false)
GROUP_PRODUCT(group_product_mn_major, WGMMA_RIGHT, false, true)
GROUP_PRODUCT(group_product_no_wait, WGMMA_NO_WAIT, false, false)
GROUP_PRODUCT(group_product_no_fence, WGMMA_NO_FENCE, false, false)
GROUP_PRODUCT(group_product_no_proxy_fence, WGMMA_NO_PROXY_FENCE, false, false)
