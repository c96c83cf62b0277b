// The C interface between the emulated kernels (libemukernels.so) and the driver (libcuda.so.1).
#pragma once
#include <cstddef>
#include <cstdint>

namespace standin {

// One parameter of a kernel, as cuFuncGetParamInfo reports it.
struct Param {
  size_t offset;
  size_t size;
  bool is_pointer;
};

// What the driver gives to a launch and what the engine asks of the driver while a kernel runs.
struct Launch {
  unsigned grid[3];
  unsigned block[3];
  size_t shared_bytes;
  char* shared;          // ends at a closed page
  unsigned seed;         // order of blocks, warps and lanes: 0 ascending, 1 descending, else random
  unsigned capability;   // 80, 86, 89 or 90
  bool overlaps;         // launched with programmatic stream serialization
  // Hide and show what unfinished earlier kernels write; only called for launches that overlap.
  void (*hide_unfinished)();
  void (*show_unfinished)();
  // Ends the launch with a CUresult. Does not return.
  void (*fail)(int code, const char* message);
  bool* triggers_before_wait;   // out: a thread called gdc_trigger before gdc_wait
};

struct Where {
  unsigned block[3];
  unsigned thread[3];
};

struct Kernel {
  const char* name;
  unsigned n_params;
  const Param* params;
  unsigned max_threads;   // of __launch_bounds__, 1024 without
  void (*run)(const Launch*, void* const* arguments);
};

extern "C" {
// By libemukernels.so.
const Kernel* standin_kernels(unsigned* count);
const char* standin_build_id();
void standin_where(Where*);

// By libcuda.so.1, for stand-ins of other libraries: enqueues `work(data)` on a stream.
int standin_enqueue(void* stream, const char* name, void (*work)(void*), void* data, void (*release)(void*));
}

}  // namespace standin
