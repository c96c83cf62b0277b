// The emulated twins of src/cuda/ptx.cuh: the same functions for g++.
// What is asynchronous takes effect as late as the rules allow; until then its destination is NaN.
#pragma once
#include <cstdint>
#include <type_traits>

#include "cuda_language.h"

namespace emu {

void require(unsigned capability, const char* what);

void grid_wait();
void grid_trigger();

void load_matrix(uint32_t* registers, unsigned n, const void* row, Order order);
void multiply_16816(float* sums, const uint32_t* a, const uint32_t* b, Type type);

void copy_async(void* to, const void* from, unsigned bytes, unsigned valid);
void commit_copies();
void wait_copies(int groups_left);

void init_barrier(uint64_t* barrier, unsigned count);
void arrive(uint64_t* barrier, unsigned bytes);
void wait_barrier(uint64_t* barrier, unsigned parity);

void load_bulk(void* to, const void* from, unsigned bytes, uint64_t* barrier);
void load_tile(void* to, const CUtensorMap* map, uint64_t* barrier, std::initializer_list<int> at);
void fence_async_proxy();

uint64_t tile_descriptor(const void* tile, unsigned leading_bytes, unsigned stride_bytes);
void begin_product(Product product);
void fence_products();
void commit_products();
void wait_products(int groups_left);

void sync_named(unsigned id, unsigned n_threads);
void arrive_named(unsigned id, unsigned n_threads);

}  // namespace emu

inline void gdc_wait() { emu::grid_wait(); }
inline void gdc_trigger() { emu::grid_trigger(); }

inline void ldmatrix_x4(uint32_t (&r)[4], const void* row) { emu::load_matrix(r, 4, row, emu::Order::Plain); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) { emu::load_matrix(r, 4, row, emu::Order::Transposed); }
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row) { emu::load_matrix(r, 2, row, emu::Order::Plain); }
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) { emu::load_matrix(r, 2, row, emu::Order::Transposed); }

namespace emu {
template <class T>
constexpr Type type_of = std::is_same_v<T, __half> ? Type::F16 : Type::Bf16;
constexpr Order order_of(int is_transposed) { return is_transposed ? Order::Transposed : Order::Plain; }
}  // namespace emu

template <class T>
void mma16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  uint32_t b[2] = {b0, b1};
  emu::multiply_16816(d, a, b, emu::type_of<T>);
}

inline void cp_async16(void* to, const void* from) { emu::copy_async(to, from, 16, 16); }
inline void cp_async16_zero(void* to, const void* from, unsigned valid) { emu::copy_async(to, from, 16, valid); }
inline void cp_async_commit() { emu::commit_copies(); }
template <int N>
void cp_async_wait() { emu::wait_copies(N); }

inline void mbar_init(uint64_t* bar, unsigned count) { emu::init_barrier(bar, count); }
inline void mbar_init_fence() {}
inline void mbar_arrive(uint64_t* bar) { emu::arrive(bar, 0); }
inline void mbar_expect(uint64_t* bar, unsigned bytes) { emu::arrive(bar, bytes); }
inline void mbar_wait(uint64_t* bar, unsigned parity) { emu::wait_barrier(bar, parity); }

inline uint64_t policy_evict_first() { return 0; }
inline uint64_t policy_evict_last() { return 1; }
inline void bulk_load(void* to, const void* from, unsigned bytes, uint64_t* bar) { emu::load_bulk(to, from, bytes, bar); }
inline void bulk_load(void* to, const void* from, unsigned bytes, uint64_t* bar, uint64_t) { emu::load_bulk(to, from, bytes, bar); }
inline void tma_load_2d(void* to, const CUtensorMap* map, uint64_t* bar, int x, int y, uint64_t) { emu::load_tile(to, map, bar, {x, y}); }
inline void tma_load_3d(void* to, const CUtensorMap* map, uint64_t* bar, int x, int y, int z, uint64_t) { emu::load_tile(to, map, bar, {x, y, z}); }
inline void tma_load_4d(void* to, const CUtensorMap* map, uint64_t* bar, int x, int y, int z, int w, uint64_t) { emu::load_tile(to, map, bar, {x, y, z, w}); }
inline void tma_load_5d(void* to, const CUtensorMap* map, uint64_t* bar, int x, int y, int z, int w, int v, uint64_t) {
  emu::load_tile(to, map, bar, {x, y, z, w, v});
}
inline void tma_prefetch_map(const CUtensorMap*) {}
inline void fence_async() { emu::fence_async_proxy(); }

inline uint64_t desc_k_major(const void* tile) { return emu::tile_descriptor(tile, 16, 1024); }
inline uint64_t desc_mn_major(const void* tile, unsigned leading_bytes, unsigned stride_bytes) {
  return emu::tile_descriptor(tile, leading_bytes, stride_bytes);
}
inline void wgmma_fence() { emu::fence_products(); }
inline void wgmma_commit() { emu::commit_products(); }
template <int N>
void wgmma_wait() { emu::wait_products(N); }
template <class T, int TransA, int TransB, size_t C>
void wgmma(float (&d)[C], uint64_t a, uint64_t b, int adds) {
  emu::Product product{};
  product.sums = d, product.n_sums = C, product.adds = adds;
  product.a_tile = {a, emu::order_of(TransA), emu::type_of<T>};
  product.b_tile = {b, emu::order_of(TransB), emu::type_of<T>};
  emu::begin_product(product);
}
template <class T, int TransB, size_t C>
void wgmma(float (&d)[C], const uint32_t (&a)[4], uint64_t b, int adds) {
  emu::Product product{};
  product.sums = d, product.n_sums = C, product.adds = adds;
  product.a_in_registers = true;
  product.b_tile = {b, emu::order_of(TransB), emu::type_of<T>};
  memcpy(product.a, a, sizeof product.a);
  emu::begin_product(product);
}

inline void bar_sync(unsigned id, unsigned n_threads) { emu::sync_named(id, n_threads); }
inline void bar_arrive(unsigned id, unsigned n_threads) { emu::arrive_named(id, n_threads); }
template <int N>
void set_max_registers_up() {}
template <int N>
void set_max_registers_down() {}
inline void prefetch_l2(const void*) {}
inline float exp2_fast(float x) { return exp2f(x); }
