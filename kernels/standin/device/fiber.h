// One fiber per CUDA thread, one block at a time.
#pragma once
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "../abi.h"

namespace emu {

enum class State : uint8_t { Run, Poll, AtBlockBarrier, AtWarpBarrier, AtGridWait, Done };

struct Index3 {
  unsigned x, y, z;
};

// A 16-byte-granular copy that has not arrived yet. `staged` holds its source when it had to be read early.
struct ThreadCopy {
  int group;
  char* to;
  const char* from;
  unsigned bytes;      // written
  unsigned valid;      // read; the rest is zero
  std::vector<char> staged;
};

enum class Type : uint8_t { Bf16, F16 };
enum class Order : uint8_t { Plain, Transposed };

// An operand of wgmma in shared memory.
struct Tile {
  uint64_t descriptor;
  Order order;
  Type type;
};

// A wgmma that has not been waited for. Accumulators hold NaN until then.
struct Product {
  int group;
  float* sums;
  unsigned n_sums;
  Tile a_tile, b_tile;
  bool a_in_registers, adds;
  uint32_t a[4];              // its registers of A
  std::vector<float> a_rows;  // the two rows of A of this thread when A is in registers
  std::vector<float> saved;   // the accumulators' values, kept by the first product in flight on them
};

struct Fiber {
  void* stack_pointer;
  Index3 thread;
  unsigned index;        // linear index in the block
  uint32_t mask;         // of the warp operation it waits at
  int line;              // of the __syncthreads it waits at
  State state;
  bool waited_for_grid, fenced_products;
  int copy_group, product_group;
  std::vector<ThreadCopy> copies;
  std::vector<Product> products;
};

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxWarps = 32;
constexpr unsigned kLaneBytes = 32;
constexpr unsigned kNamedBarriers = 16;

struct NamedBarrier {
  unsigned arrived, generation, expected;
};

struct Block {
  Index3 index;
  Index3 n_threads, n_blocks;
  std::vector<Fiber> fibers;
  Fiber* current;
  void* scheduler;       // stack pointer of the code that runs the fibers
  const standin::Launch* launch;
  const std::function<void()>* body;
  bool grid_is_ready;    // earlier kernels have finished: gdc_wait returns
  uint64_t progress;     // counts what lets a polling thread go on
  char given[kMaxWarps][kWarp][kLaneBytes];     // operands of the warp operation being collected
  char taken[kMaxWarps][kWarp][kLaneBytes];     // operands of the warp operation that completed last
  uint64_t operation[kMaxWarps];                // counts completed warp operations
  NamedBarrier barriers[kNamedBarriers];

  unsigned warp() const { return current->index / kWarp; }
  unsigned lane() const { return current->index % kWarp; }
};

inline Block block;   // the driver runs one kernel at a time

extern "C" void emu_switch(void** save_stack_pointer, void* load_stack_pointer);

inline void yield() { emu_switch(&block.current->stack_pointer, block.scheduler); }

// Ends the launch with a CUresult.
[[noreturn]] void fail(int code, const char* format, ...) __attribute__((format(printf, 2, 3)));

// One turn of a loop that waits for other threads of the block.
inline void poll() {
  block.current->state = State::Poll;
  yield();
}

inline void block_barrier(int line) {
  block.current->state = State::AtBlockBarrier;
  block.current->line = line;
  yield();
}

inline void warp_barrier(uint32_t mask) {
  Fiber* fiber = block.current;
  if (!((mask >> block.lane()) & 1)) fail(719, "a lane calls a warp operation with a mask that lacks this lane");
  fiber->mask = mask;
  fiber->state = State::AtWarpBarrier;
  yield();
}

// All lanes of `mask` give a value; afterwards `lane_value` reads those of the others.
template <class T>
inline void share_in_warp(uint32_t mask, const T& value) {
  static_assert(sizeof(T) <= kLaneBytes);
  memcpy(block.given[block.warp()][block.lane()], &value, sizeof(T));
  warp_barrier(mask);
}

template <class T>
inline T lane_value(unsigned lane) {
  T value;
  memcpy(&value, block.taken[block.warp()][lane % kWarp], sizeof(T));
  return value;
}

// What all lanes compute alike from the operands of a warp operation: the first lane computes it for the others.
template <class T, class F>
inline const T& once_in_warp(F compute) {
  static T results[kMaxWarps];
  static uint64_t operations[kMaxWarps];
  unsigned warp = block.warp();
  if (operations[warp] != block.operation[warp]) results[warp] = compute();
  operations[warp] = block.operation[warp];
  return results[warp];
}

// Runs `body` once per thread of the grid.
void run_grid(const standin::Launch* launch, const std::function<void()>& body);

// ptx.cpp: the copies and products in flight of the block.
void begin_copies();
void stage_copies();

}  // namespace emu
