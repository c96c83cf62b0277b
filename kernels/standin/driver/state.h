// What the parts of the driver share. Everything here is guarded by `lock`.
#pragma once
#include <cuda.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "../abi.h"

#define API extern "C" __attribute__((visibility("default")))

namespace standin {

// ---- settings of a device (README.md lists them); SLIPWAY_STANDIN_<NAME> gives the first values ----
struct Settings {
  int64_t seed, capability, sms, memory, watchdog_seconds, trace;
  int64_t fail_launch, lose_device, fail_allocation;   // count down with each launch or allocation; 0: never
};

struct Counters {
  int64_t launches, graph_launches, allocations, host_waits, event_waits, checked_overlaps;
};

// ---- memory ----
constexpr uint64_t kPage = 4096;
constexpr uint64_t kChunk = 4 * kPage;
enum class Chunk : uint8_t { Untouched, Clean, Open };   // no access; readable; readable and writable

struct Allocation {
  uint64_t low, high;      // whole pages; closed pages lie before and behind
  uint64_t pointer;
  size_t size;
  int device;
  unsigned id;
  bool is_freed;
  std::vector<Chunk> chunks;
  std::vector<uint8_t> fill;   // of untouched chunks: 0xff until a memset
};

struct Range {
  uint64_t address;
  size_t bytes;
};

// What kernels of a stream wrote that a kernel which overlaps with them must not read before gdc_wait.
struct Writes {
  std::map<uint64_t, std::vector<char>> before;   // chunks as they were before the last kernel
  std::deque<std::vector<Range>> unfinished;      // what each earlier kernel wrote that may still run
  bool triggered_early;
};

// ---- work ----
struct Operation {
  std::string name;
  std::function<CUresult(CUstream)> run;
  std::function<void()> when_enqueued = nullptr;   // at the call, or at each launch of the graph
  CUstream awaited = nullptr;
  uint64_t awaited_position = 0;
};

}  // namespace standin

struct CUctx_st {
  int device;
  int users = 0;
  CUresult sticky = CUDA_SUCCESS;
  CUstream null_stream;
};

struct CUgraph_st {
  std::vector<standin::Operation> operations;
  bool is_invalid = false;
};

struct CUgraphExec_st {
  std::vector<standin::Operation> operations;
};

struct CUstream_st {
  CUcontext context;
  std::deque<standin::Operation> queue;
  uint64_t enqueued = 0, done = 0;
  CUgraph capture = nullptr;
  standin::Writes writes{};
};

struct CUevent_st {
  CUcontext context;
  CUstream stream = nullptr;   // null until recorded
  uint64_t position = 0;
  CUgraph capture = nullptr;
};

namespace standin {

struct Device {
  Settings settings;
  Counters counters{};
  uint64_t base, next;
  size_t used = 0;
  CUctx_st context;
  std::string last_fault;
};

extern std::recursive_mutex lock;
extern std::vector<std::unique_ptr<Device>> devices;
extern std::map<uint64_t, Allocation> allocations;   // by `low`
extern std::vector<CUstream> streams;
extern thread_local CUcontext current_context;
extern std::mt19937 schedule_rng;

inline Device& device_of(CUcontext context) { return *devices[context->device]; }

// Writes a line to stderr and keeps it as the device's last fault.
void report(Device* device, const char* format, ...) __attribute__((format(printf, 2, 3)));

// memory.cpp
Allocation* find_allocation(uint64_t address);
std::string describe_address(uint64_t address);
void release_all(int device);
bool is_pinned(const void* pointer);
void close_chunks();
enum class Access { Read, Write };
bool open_on_fault(uint64_t address, Access access);
void open_range(uint64_t address, size_t bytes);
enum class Recording { Off, On, WritesForbidden };
extern Recording recording;
extern Writes* recorded;
void begin_kernel(Writes& writes, bool overlaps);
void end_kernel(Writes& writes, bool triggered_early);
std::string describe_writes(const Writes& writes);
void hide_unfinished();
void show_unfinished();

// stream.cpp
CUstream make_stream(CUcontext context);
CUstream stream_or_null(CUstream stream);
CUresult enqueue(CUstream stream, Operation operation);
CUresult drain(CUstream stream, uint64_t position);
CUresult drain_context(CUcontext context);
CUresult capture_error(CUstream stream, CUresult code, const char* call);
CUstream capturing_stream();

// fault.cpp
void install_handlers();
CUresult execute(CUstream stream, Operation& operation);
[[noreturn]] void raise_fault(int code, const std::string& message);
void begin_kernel_run(void (*where)(Where*), int64_t watchdog_seconds);
void end_kernel_run();

}  // namespace standin

#define WITH_DRIVER()                                                  \
  std::lock_guard<std::recursive_mutex> guard(standin::lock);          \
  if (standin::devices.empty()) return CUDA_ERROR_NOT_INITIALIZED

#define WITH_CONTEXT()                                                                     \
  WITH_DRIVER();                                                                           \
  if (!standin::current_context) return CUDA_ERROR_INVALID_CONTEXT;                        \
  if (standin::current_context->sticky) return standin::current_context->sticky

#define NOT_IN_CAPTURE(call)                                                               \
  if (CUstream capturing = standin::capturing_stream())                                    \
    return standin::capture_error(capturing, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, call)
