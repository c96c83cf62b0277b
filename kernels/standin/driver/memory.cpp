// Device and pinned memory. A device's memory is closed until it is touched: then a chunk is filled with NaN. Each first
// write of a kernel to a chunk faults and is recorded, so that what a kernel wrote is known to the byte.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "state.h"

namespace standin {

std::map<uint64_t, Allocation> allocations;
Recording recording = Recording::Off;
Writes* recorded;

namespace {

std::map<uint64_t, size_t> pinned;
std::vector<uint64_t> open_chunks;
std::vector<Range> hidden;        // what unfinished kernels wrote, without overlaps
std::vector<char> hidden_bytes;   // its values while they are hidden
unsigned next_id = 1;

void protect(uint64_t address, size_t bytes, int protection) { mprotect(reinterpret_cast<void*>(address), bytes, protection); }

uint64_t chunk_address(const Allocation& a, size_t index) { return a.low + index * kChunk; }
size_t chunk_bytes(const Allocation& a, size_t index) { return std::min(kChunk, a.high - chunk_address(a, index)); }

void record(uint64_t address, size_t bytes) {
  if (recording != Recording::On || recorded->before.count(address)) return;
  const char* chunk = reinterpret_cast<const char*>(address);
  recorded->before.emplace(address, std::vector<char>(chunk, chunk + bytes));
}

void open_chunk(Allocation& a, size_t index, Access access) {
  bool for_write = access == Access::Write;
  uint64_t address = chunk_address(a, index);
  size_t bytes = chunk_bytes(a, index);
  if (a.chunks[index] == Chunk::Untouched) {
    protect(address, bytes, PROT_READ | PROT_WRITE);
    memset(reinterpret_cast<void*>(address), a.fill[index], bytes);
    if (!for_write) protect(address, bytes, PROT_READ);
  } else if (for_write && a.chunks[index] == Chunk::Clean) {
    protect(address, bytes, PROT_READ | PROT_WRITE);
  } else {
    return;
  }
  a.chunks[index] = for_write ? Chunk::Open : Chunk::Clean;
  if (!for_write) return;
  record(address, bytes);
  open_chunks.push_back(address);
}

CUresult reserve(size_t size, uint64_t* pointer) {
  Device& device = device_of(current_context);
  if (device.settings.fail_allocation && --device.settings.fail_allocation == 0) return CUDA_ERROR_OUT_OF_MEMORY;
  if (device.used + size > size_t(device.settings.memory)) return CUDA_ERROR_OUT_OF_MEMORY;
  size_t bytes = (size + kPage - 1) / kPage * kPage;
  if (device.next + bytes + 2 * kPage > device.base + (1ull << 38)) return CUDA_ERROR_OUT_OF_MEMORY;
  Allocation a{};
  a.low = device.next + kPage;
  a.high = a.low + bytes;
  a.pointer = a.high - (size + 255) / 256 * 256;   // ends at a closed page
  a.size = size;
  a.device = current_context->device;
  a.id = next_id++;
  a.chunks.assign((bytes + kChunk - 1) / kChunk, Chunk::Untouched);
  a.fill.assign(a.chunks.size(), 0xff);
  device.next = a.high;   // addresses are never used again
  device.used += size;
  device.counters.allocations++;
  *pointer = a.pointer;
  allocations[a.low] = std::move(a);
  return CUDA_SUCCESS;
}

// Bytes between the allocation and its pages: 256-byte alignment leaves some.
bool is_slack_unset(Allocation& a) {
  size_t last = a.chunks.size() - 1;
  if (a.chunks[last] == Chunk::Untouched || a.fill[last] != 0xff) return true;
  const uint8_t* end = reinterpret_cast<const uint8_t*>(a.high);
  const uint8_t* slack = reinterpret_cast<const uint8_t*>(a.pointer + a.size);
  return std::all_of(slack, end, [](uint8_t byte) { return byte == 0xff; });
}

void release(Allocation& a) {
  if (!is_slack_unset(a)) report(devices[a.device].get(), "bytes behind the end of allocation #%u (%zu bytes) were written", a.id, a.size);
  void* start = reinterpret_cast<void*>(a.low);
  mmap(start, a.high - a.low, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
  open_chunks.erase(std::remove_if(open_chunks.begin(), open_chunks.end(), [&](uint64_t c) { return c >= a.low && c < a.high; }), open_chunks.end());
  a.is_freed = true;
  a.chunks.clear();
  a.fill.clear();
  devices[a.device]->used -= a.size;
}

CUresult check_range(const char* call, uint64_t address, size_t bytes) {
  Allocation* a = find_allocation(address);
  if (a && !a->is_freed && a->device == current_context->device && address >= a->pointer && address + bytes <= a->pointer + a->size) return CUDA_SUCCESS;
  report(&device_of(current_context), "%s of %zu bytes at 0x%lx: %s", call, bytes, address, describe_address(address).c_str());
  return CUDA_ERROR_INVALID_VALUE;
}

// Memory of copies that take part in stream order ends the overlap of kernels.
void forget_writes(CUstream stream) { stream->writes = {}; }

// Fills whole chunks without touching them.
void fill(uint64_t address, uint8_t value, size_t bytes) {
  Allocation& a = *find_allocation(address);
  uint64_t end = address + bytes;
  for (uint64_t at = address; at < end;) {
    size_t index = (at - a.low) / kChunk;
    uint64_t chunk = chunk_address(a, index), chunk_end = chunk + chunk_bytes(a, index);
    uint64_t stop = std::min(end, chunk_end);
    if (at == chunk && stop == chunk_end && a.chunks[index] == Chunk::Untouched) {
      a.fill[index] = value;
    } else {
      open_range(at, stop - at);
      memset(reinterpret_cast<void*>(at), value, stop - at);
    }
    at = stop;
  }
}

std::vector<Range> changed_ranges(const std::map<uint64_t, std::vector<char>>& before) {
  std::vector<Range> changed;
  for (const auto& [address, bytes] : before) {
    Allocation* a = find_allocation(address);
    if (!a || a->is_freed) continue;
    const char* now = reinterpret_cast<const char*>(address);
    for (size_t i = 0; i < bytes.size(); i += 4) {
      if (!memcmp(now + i, bytes.data() + i, 4)) continue;
      bool joins = !changed.empty() && changed.back().address + changed.back().bytes == address + i;
      if (joins) changed.back().bytes += 4;
      else changed.push_back({address + i, 4});
    }
  }
  return changed;
}

// The ranges of all kernels, sorted and joined.
std::vector<Range> join(const std::deque<std::vector<Range>>& of_kernels) {
  std::vector<Range> all, joined;
  for (const auto& ranges : of_kernels) {
    for (const Range& range : ranges) {
      Allocation* a = find_allocation(range.address);
      if (a && !a->is_freed) all.push_back(range);
    }
  }
  std::sort(all.begin(), all.end(), [](const Range& a, const Range& b) { return a.address < b.address; });
  for (const Range& range : all) {
    bool overlaps = !joined.empty() && range.address <= joined.back().address + joined.back().bytes;
    if (!overlaps) joined.push_back(range);
    else joined.back().bytes = std::max(joined.back().bytes, range.address + range.bytes - joined.back().address);
  }
  return joined;
}

}  // namespace

Allocation* find_allocation(uint64_t address) {
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return nullptr;
  Allocation& a = std::prev(next)->second;
  return address < a.high ? &a : nullptr;
}

std::string describe_address(uint64_t address) {
  Allocation* a = find_allocation(address);
  if (!a) a = find_allocation(address - kPage);
  if (!a) a = find_allocation(address + kPage);
  if (!a) return "this is no device memory";
  char text[200];
  const char* freed = a->is_freed ? ", which was freed" : "";
  if (address < a->pointer) {
    snprintf(text, sizeof text, "%lu bytes before allocation #%u (%zu bytes%s)", a->pointer - address, a->id, a->size, freed);
  } else if (address >= a->pointer + a->size) {
    snprintf(text, sizeof text, "%lu bytes behind the end of allocation #%u (%zu bytes%s)", address - a->pointer - a->size, a->id, a->size, freed);
  } else {
    snprintf(text, sizeof text, "byte %lu of allocation #%u (%zu bytes%s)", address - a->pointer, a->id, a->size, freed);
  }
  return text;
}

void release_all(int device) {
  for (auto& [low, a] : allocations) {
    if (a.device == device && !a.is_freed) release(a);
  }
}

bool is_pinned(const void* pointer) {
  auto next = pinned.upper_bound(reinterpret_cast<uint64_t>(pointer));
  if (next == pinned.begin()) return false;
  auto [start, bytes] = *std::prev(next);
  return reinterpret_cast<uint64_t>(pointer) < start + bytes;
}

// Makes what was written readable only, so that the next write is seen.
void close_chunks() {
  std::sort(open_chunks.begin(), open_chunks.end());
  for (size_t i = 0; i < open_chunks.size();) {
    Allocation& a = *find_allocation(open_chunks[i]);
    uint64_t start = open_chunks[i], end = start;
    for (; i < open_chunks.size() && open_chunks[i] == end && end < a.high; i++) {
      size_t index = (end - a.low) / kChunk;
      a.chunks[index] = Chunk::Clean;
      end += chunk_bytes(a, index);
    }
    protect(start, end - start, PROT_READ);
  }
  open_chunks.clear();
}

// Answers a fault. False: the access is not allowed.
bool open_on_fault(uint64_t address, Access access) {
  bool is_write = access == Access::Write;
  Allocation* a = find_allocation(address);
  if (!a || a->is_freed || address < a->low) return false;
  if (is_write && recording == Recording::WritesForbidden) return false;
  size_t index = (address - a->low) / kChunk;
  if (a->chunks[index] == Chunk::Open || (a->chunks[index] == Chunk::Clean && !is_write)) return false;
  open_chunk(*a, index, access);
  return true;
}

void open_range(uint64_t address, size_t bytes) {
  Allocation& a = *find_allocation(address);
  for (size_t i = (address - a.low) / kChunk; i <= (address + bytes - 1 - a.low) / kChunk; i++) open_chunk(a, i, Access::Write);
}

void begin_kernel(Writes& writes, bool overlaps) {
  constexpr size_t kChainMax = 8;   // kernels that a card keeps in flight at once
  if (!overlaps || !writes.triggered_early) writes.unfinished.clear();
  if (overlaps) writes.unfinished.push_back(changed_ranges(writes.before));
  if (writes.unfinished.size() > kChainMax) writes.unfinished.pop_front();
  hidden = join(writes.unfinished);
  writes.before.clear();
  recorded = &writes;
  recording = Recording::On;
}

void end_kernel(Writes& writes, bool triggered_early) {
  writes.triggered_early = triggered_early;
  recording = Recording::Off;
  close_chunks();
}

// How many bytes the last kernel changed, and how many of its words are NaN as f32: to find where a NaN comes from.
std::string describe_writes(const Writes& writes) {
  size_t bytes = 0, n_nan = 0;
  for (const Range& range : changed_ranges(writes.before)) {
    bytes += range.bytes;
    const float* words = reinterpret_cast<const float*>(range.address);
    n_nan += std::count_if(words, words + range.bytes / 4, [](float word) { return word != word; });
  }
  return std::to_string(bytes) + " bytes changed, " + std::to_string(n_nan) + " words are NaN as f32";
}

void hide_unfinished() {
  recording = Recording::Off;
  hidden_bytes.clear();
  for (const Range& range : hidden) {
    char* bytes = reinterpret_cast<char*>(range.address);
    hidden_bytes.insert(hidden_bytes.end(), bytes, bytes + range.bytes);
    open_range(range.address, range.bytes);
    memset(bytes, 0xff, range.bytes);
  }
  close_chunks();
  recording = Recording::WritesForbidden;
}

void show_unfinished() {
  recording = Recording::Off;
  const char* from = hidden_bytes.data();
  for (const Range& range : hidden) {
    open_range(range.address, range.bytes);
    memcpy(reinterpret_cast<void*>(range.address), from, range.bytes);
    from += range.bytes;
  }
  close_chunks();
  recording = Recording::On;
}

}  // namespace standin

using namespace standin;

#define CHECK_RANGE(call, address, bytes) \
  if (CUresult bad = check_range(call, address, bytes)) return bad

API CUresult cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
  WITH_CONTEXT();
  Device& device = device_of(current_context);
  *total = device.settings.memory;
  *free_bytes = *total - std::min(*total, device.used);
  return CUDA_SUCCESS;
}

API CUresult cuMemAlloc_v2(CUdeviceptr* pointer, size_t bytes) {
  WITH_CONTEXT();
  NOT_IN_CAPTURE("cuMemAlloc");
  if (!bytes) return CUDA_ERROR_INVALID_VALUE;
  uint64_t address;
  if (CUresult code = reserve(bytes, &address)) return code;
  *pointer = address;
  return CUDA_SUCCESS;
}

API CUresult cuMemFree_v2(CUdeviceptr pointer) {
  WITH_CONTEXT();
  NOT_IN_CAPTURE("cuMemFree");
  if (!pointer) return CUDA_SUCCESS;
  Allocation* a = find_allocation(pointer);
  if (!a || a->pointer != pointer || a->is_freed) {
    report(&device_of(current_context), "cuMemFree(0x%llx): %s", pointer, describe_address(pointer).c_str());
    return CUDA_ERROR_INVALID_VALUE;
  }
  CUresult code = drain_context(current_context);
  release(*a);
  return code;
}

API CUresult cuMemHostAlloc(void** pointer, size_t bytes, unsigned) {
  WITH_CONTEXT();
  NOT_IN_CAPTURE("cuMemHostAlloc");
  *pointer = aligned_alloc(kPage, (bytes + kPage - 1) / kPage * kPage);
  if (!*pointer) return CUDA_ERROR_OUT_OF_MEMORY;
  memset(*pointer, 0xff, bytes);
  pinned[reinterpret_cast<uint64_t>(*pointer)] = bytes;
  device_of(current_context).counters.allocations++;
  return CUDA_SUCCESS;
}

API CUresult cuMemFreeHost(void* pointer) {
  WITH_DRIVER();
  if (!pinned.erase(reinterpret_cast<uint64_t>(pointer))) return CUDA_ERROR_INVALID_VALUE;
  if (current_context) drain_context(current_context);
  free(pointer);
  return CUDA_SUCCESS;
}

// A pinned source is read when the copy runs, a pageable one at the call.
API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  WITH_CONTEXT();
  if (!bytes) return CUDA_SUCCESS;
  CHECK_RANGE("cuMemcpyHtoDAsync", to, bytes);
  stream = stream_or_null(stream);
  std::shared_ptr<std::vector<char>> staged;
  if (!is_pinned(from)) {
    if (stream->capture) return capture_error(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "cuMemcpyHtoDAsync from pageable memory");
    staged = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
  }
  return enqueue(stream, {"cuMemcpyHtoDAsync", [=](CUstream s) {
    forget_writes(s);
    open_range(to, bytes);
    memcpy(reinterpret_cast<void*>(to), staged ? staged->data() : from, bytes);
    return CUDA_SUCCESS;
  }});
}

// The destination holds 0xdd until the copy has run. To pageable memory the call waits.
API CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  WITH_CONTEXT();
  if (!bytes) return CUDA_SUCCESS;
  CHECK_RANGE("cuMemcpyDtoHAsync", from, bytes);
  stream = stream_or_null(stream);
  bool waits = !is_pinned(to);
  if (waits && stream->capture) return capture_error(stream, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "cuMemcpyDtoHAsync to pageable memory");
  auto copy = [=](CUstream s) {
    forget_writes(s);
    memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return CUDA_SUCCESS;
  };
  CUresult code = enqueue(stream, {"cuMemcpyDtoHAsync", copy, [=] { memset(to, 0xdd, bytes); }});
  if (code || !waits) return code;
  device_of(stream->context).counters.host_waits++;
  return drain(stream, stream->enqueued);
}

API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  WITH_CONTEXT();
  if (!bytes) return CUDA_SUCCESS;
  CHECK_RANGE("cuMemcpyDtoDAsync", to, bytes);
  CHECK_RANGE("cuMemcpyDtoDAsync", from, bytes);
  return enqueue(stream_or_null(stream), {"cuMemcpyDtoDAsync", [=](CUstream s) {
    forget_writes(s);
    open_range(to, bytes);
    memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    return CUDA_SUCCESS;
  }});
}

// Rows of WidthInBytes between device and pinned memory, in any direction.
API CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* copy, CUstream stream) {
  WITH_CONTEXT();
  CUDA_MEMCPY2D c = *copy;
  if (!c.WidthInBytes || !c.Height) return CUDA_SUCCESS;
  auto start = [](CUmemorytype type, const void* host, CUdeviceptr device, size_t pitch, size_t x, size_t y) {
    return (type == CU_MEMORYTYPE_HOST ? reinterpret_cast<uint64_t>(host) : device) + y * pitch + x;
  };
  uint64_t from = start(c.srcMemoryType, c.srcHost, c.srcDevice, c.srcPitch, c.srcXInBytes, c.srcY);
  uint64_t to = start(c.dstMemoryType, c.dstHost, c.dstDevice, c.dstPitch, c.dstXInBytes, c.dstY);
  for (auto [type, address, pitch] : {std::tuple{c.srcMemoryType, from, c.srcPitch}, std::tuple{c.dstMemoryType, to, c.dstPitch}}) {
    if (pitch < c.WidthInBytes) return CUDA_ERROR_INVALID_VALUE;
    if (type == CU_MEMORYTYPE_DEVICE) {
      CHECK_RANGE("cuMemcpy2DAsync", address, (c.Height - 1) * pitch + c.WidthInBytes);
    } else if (type != CU_MEMORYTYPE_HOST || !is_pinned(reinterpret_cast<void*>(address))) {
      report(&device_of(current_context), "cuMemcpy2DAsync: the stand-in copies between device and pinned memory only");
      return CUDA_ERROR_NOT_SUPPORTED;
    }
  }
  return enqueue(stream_or_null(stream), {"cuMemcpy2DAsync", [=](CUstream s) {
    forget_writes(s);
    for (size_t row = 0; row < c.Height; row++) {
      uint64_t target = to + row * c.dstPitch;
      if (c.dstMemoryType == CU_MEMORYTYPE_DEVICE) open_range(target, c.WidthInBytes);
      memmove(reinterpret_cast<void*>(target), reinterpret_cast<const void*>(from + row * c.srcPitch), c.WidthInBytes);
    }
    return CUDA_SUCCESS;
  }});
}

API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  WITH_CONTEXT();
  if (!bytes) return CUDA_SUCCESS;
  CHECK_RANGE("cuMemsetD8Async", to, bytes);
  return enqueue(stream_or_null(stream), {"cuMemsetD8Async", [=](CUstream s) {
    forget_writes(s);
    fill(to, value, bytes);
    return CUDA_SUCCESS;
  }});
}
