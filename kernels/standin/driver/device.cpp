// Devices, contexts, and the calls by which tests set and read a device.
#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "state.h"

namespace standin {

std::recursive_mutex lock;
std::vector<std::unique_ptr<Device>> devices;
std::vector<CUstream> streams;
thread_local CUcontext current_context;
std::mt19937 schedule_rng;

namespace {

constexpr uint64_t kAddressSpace = 1ull << 38;   // of one device

int64_t from_environment(const char* name, int64_t otherwise) {
  const char* value = getenv(name);
  return value ? atoll(value) : otherwise;
}

Settings first_settings() {
  Settings s{};
  s.seed = from_environment("SLIPWAY_STANDIN_SEED", 0);
  s.capability = from_environment("SLIPWAY_STANDIN_CAPABILITY", 90);
  s.sms = from_environment("SLIPWAY_STANDIN_SMS", 4);
  s.memory = from_environment("SLIPWAY_STANDIN_MEMORY", int64_t(1) << 30);
  s.watchdog_seconds = from_environment("SLIPWAY_STANDIN_WATCHDOG_SECONDS", 60);
  s.trace = from_environment("SLIPWAY_STANDIN_TRACE", 0);
  s.fail_launch = from_environment("SLIPWAY_STANDIN_FAIL_LAUNCH", 0);
  s.lose_device = from_environment("SLIPWAY_STANDIN_LOSE_DEVICE", 0);
  s.fail_allocation = from_environment("SLIPWAY_STANDIN_FAIL_ALLOCATION", 0);
  return s;
}

struct Field {
  const char* name;
  int64_t* value;
};

std::vector<Field> settings_of(Device& d) {
  Settings& s = d.settings;
  return {{"seed", &s.seed}, {"capability", &s.capability}, {"sms", &s.sms}, {"memory", &s.memory},
          {"watchdog_seconds", &s.watchdog_seconds}, {"trace", &s.trace}, {"fail_launch", &s.fail_launch},
          {"lose_device", &s.lose_device}, {"fail_allocation", &s.fail_allocation}};
}

std::vector<Field> counters_of(Device& d) {
  Counters& c = d.counters;
  return {{"launches", &c.launches}, {"graph_launches", &c.graph_launches}, {"allocations", &c.allocations},
          {"host_waits", &c.host_waits}, {"event_waits", &c.event_waits}, {"checked_overlaps", &c.checked_overlaps}};
}

bool add_device(int ordinal) {
  auto device = std::make_unique<Device>();
  void* space = mmap(nullptr, kAddressSpace, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (space == MAP_FAILED) return false;
  device->settings = first_settings();
  device->base = device->next = reinterpret_cast<uint64_t>(space);
  device->context.device = ordinal;
  devices.push_back(std::move(device));
  devices.back()->context.null_stream = make_stream(&devices.back()->context);
  return true;
}

int max_shared_bytes(const Settings& s) {
  switch (s.capability) {
    case 80: return 163 << 10;
    case 86: case 89: return 99 << 10;
    default: return 227 << 10;
  }
}

bool is_device(CUdevice ordinal) { return ordinal >= 0 && size_t(ordinal) < devices.size(); }

}  // namespace

void report(Device* device, const char* format, ...) {
  char line[1024];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  fprintf(stderr, "stand-in driver: %s\n", line);
  if (device) device->last_fault = line;
}

}  // namespace standin

using namespace standin;

// Sets a setting of a device. Returns 0, or 1 for an unknown name or device.
API int standin_set(int ordinal, const char* name, int64_t value) {
  std::lock_guard<std::recursive_mutex> guard(lock);
  if (!is_device(ordinal)) return 1;
  for (Field field : settings_of(*devices[ordinal])) {
    if (strcmp(field.name, name)) continue;
    *field.value = value;
    if (!strcmp(name, "seed")) schedule_rng.seed(value);
    return 0;
  }
  return 1;
}

// A setting or counter of a device; -1 for an unknown name or device.
API int64_t standin_get(int ordinal, const char* name) {
  std::lock_guard<std::recursive_mutex> guard(lock);
  if (!is_device(ordinal)) return -1;
  for (auto fields : {settings_of(*devices[ordinal]), counters_of(*devices[ordinal])}) {
    for (Field field : fields) {
      if (!strcmp(field.name, name)) return *field.value;
    }
  }
  return -1;
}

// The last fault of a device, "" without one. Valid until the next fault.
API const char* standin_last_fault(int ordinal) {
  std::lock_guard<std::recursive_mutex> guard(lock);
  return is_device(ordinal) ? devices[ordinal]->last_fault.c_str() : "";
}

API CUresult cuInit(unsigned) {
  std::lock_guard<std::recursive_mutex> guard(lock);
  if (!devices.empty()) return CUDA_SUCCESS;
  int64_t n = from_environment("SLIPWAY_STANDIN_DEVICES", 32);
  for (int ordinal = 0; ordinal < n; ordinal++) {
    if (!add_device(ordinal)) return CUDA_ERROR_OUT_OF_MEMORY;
  }
  if (devices.empty()) return CUDA_ERROR_NO_DEVICE;
  schedule_rng.seed(devices[0]->settings.seed);
  install_handlers();
  return CUDA_SUCCESS;
}

API CUresult cuDriverGetVersion(int* version) {
  *version = 13000;
  return CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int* count) {
  WITH_DRIVER();
  *count = int(devices.size());
  return CUDA_SUCCESS;
}

API CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  WITH_DRIVER();
  if (!is_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

API CUresult cuDeviceGetName(char* name, int length, CUdevice device) {
  WITH_DRIVER();
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  snprintf(name, length, "Slipway stand-in sm_%d", int(devices[device]->settings.capability));
  return CUDA_SUCCESS;
}

API CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  WITH_DRIVER();
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *bytes = devices[device]->settings.memory;
  return CUDA_SUCCESS;
}

API CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  WITH_DRIVER();
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  const Settings& s = devices[device]->settings;
  switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = int(s.capability / 10); break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = int(s.capability % 10); break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = int(s.sms); break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: *value = 64; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: *value = 2147483647; break;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: *value = 65535; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = 48 << 10; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = max_shared_bytes(s); break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = max_shared_bytes(s) + 1024; break;
    case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *value = s.capability == 86 || s.capability == 89 ? 1536 : 2048; break;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
    default: *value = 0;   // memory pools and the other optional parts do not exist here
  }
  return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  WITH_DRIVER();
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  *context = &devices[device]->context;
  (*context)->users++;
  return CUDA_SUCCESS;
}

// The last release resets the context, as the driver does: memory goes, errors and counters too.
API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  WITH_DRIVER();
  if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
  CUcontext context = &devices[device]->context;
  if (context->users == 0) return CUDA_ERROR_INVALID_CONTEXT;
  if (--context->users) return CUDA_SUCCESS;
  drain_context(context);
  context->sticky = CUDA_SUCCESS;
  release_all(device);
  devices[device]->counters = {};
  return CUDA_SUCCESS;
}

API CUresult cuCtxSetCurrent(CUcontext context) {
  WITH_DRIVER();
  current_context = context;
  return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice, unsigned) { return CUDA_SUCCESS; }
