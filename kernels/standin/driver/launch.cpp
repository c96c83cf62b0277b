// Modules, functions and launches.
#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "state.h"

namespace standin {
namespace {

constexpr size_t kDefaultShared = 48 << 10;
constexpr size_t kMostShared = 228 << 10;

// A library of emulated kernels.
struct Library {
  const Kernel* kernels;
  unsigned n_kernels;
  void (*where)(Where*);
  std::string build_id;
};

struct Function {
  const Kernel* kernel;
  const Library* library;
  size_t max_shared = kDefaultShared;
};

struct Module {
  Library library;
  std::map<std::string, std::unique_ptr<Function>> functions;
};

Function* function_of(CUfunction handle) { return reinterpret_cast<Function*>(handle); }

std::string default_library() {
  if (const char* path = getenv("SLIPWAY_STANDIN_KERNELS")) return path;
  Dl_info info{};
  dladdr(reinterpret_cast<void*>(&function_of), &info);
  std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1) + "libemukernels.so";
}

CUresult open_library(const std::string& path, Library* library) {
  void* handle = dlopen(path.c_str(), RTLD_NOW);
  if (!handle) {
    report(&device_of(current_context), "%s", dlerror());
    return CUDA_ERROR_FILE_NOT_FOUND;
  }
  auto list = reinterpret_cast<decltype(&standin_kernels)>(dlsym(handle, "standin_kernels"));
  library->kernels = list(&library->n_kernels);
  library->where = reinterpret_cast<decltype(&standin_where)>(dlsym(handle, "standin_where"));
  library->build_id = reinterpret_cast<decltype(&standin_build_id)>(dlsym(handle, "standin_build_id"))();
  return CUDA_SUCCESS;
}

// The build id that kernels/cuda/build.py writes behind the fatbin of an image; "" without one.
std::string build_id_of(const char* image) {
  constexpr uint32_t kFatbinMagic = 0xba55ed50;
  constexpr char kMark[] = "slipway-build-id:";
  struct Header { uint32_t magic; uint16_t version, header_bytes; uint64_t bytes; } header;
  memcpy(&header, image, strnlen(image, sizeof header));
  if (header.magic == kFatbinMagic) {
    memcpy(&header, image, sizeof header);
    image += header.header_bytes + header.bytes + 1;
  }
  return strncmp(image, kMark, strlen(kMark)) ? "" : image + strlen(kMark);
}

// An image is one of the build, or for the stand-in's own tests "standin-library:PATH".
CUresult load_module(Module** module, const void* image) {
  constexpr char kMark[] = "standin-library:";
  const char* text = static_cast<const char*>(image);
  bool is_planted = !strncmp(text, kMark, strlen(kMark));
  auto loaded = std::make_unique<Module>();
  if (CUresult code = open_library(is_planted ? text + strlen(kMark) : default_library(), &loaded->library)) return code;
  if (!is_planted && build_id_of(text) != loaded->library.build_id) {
    report(&device_of(current_context), "the program was built with the kernels %s, the stand-in with %s", build_id_of(text).c_str(),
           loaded->library.build_id.c_str());
    return CUDA_ERROR_INVALID_IMAGE;
  }
  *module = loaded.release();
  return CUDA_SUCCESS;
}

CUresult find_function(Module* module, const char* name, Function** function) {
  std::unique_ptr<Function>& slot = module->functions[name];
  const Library& library = module->library;
  for (unsigned i = 0; i < library.n_kernels && !slot; i++) {
    if (!strcmp(library.kernels[i].name, name)) slot.reset(new Function{&library.kernels[i], &library});
  }
  if (!slot) {
    report(&device_of(current_context), "no kernel is named %s", name);
    return CUDA_ERROR_NOT_FOUND;
  }
  *function = slot.get();
  return CUDA_SUCCESS;
}

int attribute(CUdevice_attribute which) {
  int value = 0;
  cuDeviceGetAttribute(&value, which, current_context->device);
  return value;
}

// The arguments of a launch, copied at the call as the driver does.
class Arguments {
 public:
  Arguments(const Kernel& kernel, void** pointers) {
    for (unsigned i = 0; i < kernel.n_params; i++) {
      constexpr size_t kAlignment = 64;   // of tensor maps
      offsets_.push_back(size_);
      size_ += (kernel.params[i].size + kAlignment - 1) / kAlignment * kAlignment;
    }
    bytes_ = std::shared_ptr<char>(static_cast<char*>(aligned_alloc(64, std::max<size_t>(size_, 64))), free);
    for (unsigned i = 0; i < kernel.n_params; i++) memcpy(at(i), pointers[i], kernel.params[i].size);
  }
  char* at(unsigned i) const { return bytes_.get() + offsets_[i]; }
  std::vector<void*> pointers() const {
    std::vector<void*> list;
    for (unsigned i = 0; i < offsets_.size(); i++) list.push_back(at(i));
    return list;
  }

 private:
  std::vector<size_t> offsets_;
  size_t size_ = 0;
  std::shared_ptr<char> bytes_;
};

CUresult refuse(CUresult code, const Kernel& kernel, const std::string& reason) {
  report(&device_of(current_context), "%s: %s", kernel.name, reason.c_str());
  return code;
}

CUresult check_shape(const Function& f, const CUlaunchConfig& c) {
  const Kernel& k = *f.kernel;
  uint64_t threads = uint64_t(c.blockDimX) * c.blockDimY * c.blockDimZ;
  if (!threads || !c.gridDimX || !c.gridDimY || !c.gridDimZ) return refuse(CUDA_ERROR_INVALID_VALUE, k, "a grid or block dimension is 0");
  if (threads > 1024 || c.blockDimZ > 64 || c.gridDimX > 2147483647u || c.gridDimY > 65535 || c.gridDimZ > 65535) {
    return refuse(CUDA_ERROR_INVALID_VALUE, k, "the block or the grid is larger than the device allows");
  }
  if (threads > k.max_threads) {
    return refuse(CUDA_ERROR_INVALID_VALUE, k, std::to_string(threads) + " threads a block, __launch_bounds__ allows " + std::to_string(k.max_threads));
  }
  if (c.sharedMemBytes > f.max_shared) {
    return refuse(CUDA_ERROR_INVALID_VALUE, k, std::to_string(c.sharedMemBytes) + " bytes of dynamic shared memory, " + std::to_string(f.max_shared) +
                  " are allowed (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES raises it)");
  }
  return CUDA_SUCCESS;
}

CUresult check_pointers(const Kernel& k, const Arguments& arguments) {
  for (unsigned i = 0; i < k.n_params; i++) {
    uint64_t address;
    if (!k.params[i].is_pointer) continue;
    memcpy(&address, arguments.at(i), sizeof address);
    if (!address || is_pinned(reinterpret_cast<void*>(address))) continue;
    Allocation* a = find_allocation(address);
    if (!a && find_allocation(address - 1)) a = find_allocation(address - 1);   // an empty view at the end
    if (a && !a->is_freed && a->device == current_context->device && address >= a->pointer) continue;
    return refuse(CUDA_ERROR_INVALID_VALUE, k, "pointer argument " + std::to_string(i) + ": " + describe_address(address));
  }
  return CUDA_SUCCESS;
}

CUresult read_attributes(const Kernel& k, const CUlaunchConfig& c, bool* overlaps) {
  for (unsigned i = 0; i < c.numAttrs; i++) {
    const CUlaunchAttribute& attribute = c.attrs[i];
    if (attribute.id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) {
      *overlaps = attribute.value.programmaticStreamSerializationAllowed;
    } else if (attribute.id != CU_LAUNCH_ATTRIBUTE_IGNORE) {
      return refuse(CUDA_ERROR_NOT_SUPPORTED, k, "launch attribute " + std::to_string(attribute.id) + " is not emulated");
    }
  }
  if (*overlaps && device_of(current_context).settings.capability < 90) {
    return refuse(CUDA_ERROR_NOT_SUPPORTED, k, "programmatic stream serialization needs compute capability 9.0");
  }
  return CUDA_SUCCESS;
}

// Dynamic shared memory of the block that runs; it ends at a closed page.
char* shared_memory(size_t bytes) {
  static char* end = [] {
    void* memory = mmap(nullptr, kMostShared + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(static_cast<char*>(memory) + kMostShared, kPage, PROT_NONE);
    return static_cast<char*>(memory) + kMostShared;
  }();
  return end - (bytes + 127) / 128 * 128;
}

void fail_launch(int code, const char* message) { raise_fault(code, message); }

CUresult planned_failure(Device& device) {
  Settings& s = device.settings;
  if (s.fail_launch && --s.fail_launch == 0) {
    report(&device, "this launch fails as asked");
    return CUDA_ERROR_LAUNCH_FAILED;
  }
  if (s.lose_device && --s.lose_device == 0) {
    report(&device, "the device is lost as asked");
    return CUDA_ERROR_UNKNOWN;
  }
  return CUDA_SUCCESS;
}

CUresult run_kernel(CUstream stream, const Function& f, Launch launch, const Arguments& arguments) {
  Device& device = device_of(stream->context);
  device.counters.launches++;
  if (CUresult code = planned_failure(device)) return code;
  bool triggered = false;
  launch.seed = unsigned(device.settings.seed);
  launch.capability = unsigned(device.settings.capability);
  launch.shared = shared_memory(launch.shared_bytes);
  launch.hide_unfinished = hide_unfinished;
  launch.show_unfinished = show_unfinished;
  launch.fail = fail_launch;
  launch.triggers_before_wait = &triggered;
  if (launch.overlaps) device.counters.checked_overlaps++;
  begin_kernel(stream->writes, launch.overlaps);
  begin_kernel_run(f.library->where, device.settings.watchdog_seconds);
  f.kernel->run(&launch, arguments.pointers().data());
  end_kernel_run();
  end_kernel(stream->writes, triggered);
  if (device.settings.trace) report(nullptr, "ran %s: %s", f.kernel->name, describe_writes(stream->writes).c_str());
  return CUDA_SUCCESS;
}

CUresult launch(const CUlaunchConfig& c, CUfunction handle, void** pointers) {
  const Function& f = *function_of(handle);
  bool overlaps = false;
  if (CUresult code = check_shape(f, c)) return code;
  if (CUresult code = read_attributes(*f.kernel, c, &overlaps)) return code;
  if (f.kernel->n_params && !pointers) return refuse(CUDA_ERROR_INVALID_VALUE, *f.kernel, "the launch has no arguments");
  Arguments arguments(*f.kernel, pointers);
  if (CUresult code = check_pointers(*f.kernel, arguments)) return code;
  Launch shape{};
  std::copy_n(&c.gridDimX, 3, shape.grid);
  std::copy_n(&c.blockDimX, 3, shape.block);
  shape.shared_bytes = c.sharedMemBytes;
  shape.overlaps = overlaps;
  return enqueue(stream_or_null(c.hStream), {f.kernel->name, [=](CUstream stream) { return run_kernel(stream, f, shape, arguments); }});
}

}  // namespace
}  // namespace standin

using namespace standin;

API CUresult cuModuleLoadData(CUmodule* module, const void* image) {
  WITH_CONTEXT();
  NOT_IN_CAPTURE("cuModuleLoadData");
  return load_module(reinterpret_cast<Module**>(module), image);
}

API CUresult cuModuleUnload(CUmodule module) {
  WITH_DRIVER();
  if (current_context) drain_context(current_context);
  delete reinterpret_cast<Module*>(module);
  return CUDA_SUCCESS;
}

API CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
  WITH_CONTEXT();
  NOT_IN_CAPTURE("cuModuleGetFunction");
  return find_function(reinterpret_cast<Module*>(module), name, reinterpret_cast<Function**>(function));
}

API CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t* offset, size_t* size) {
  WITH_CONTEXT();
  const Kernel& kernel = *function_of(function)->kernel;
  if (index >= kernel.n_params) return CUDA_ERROR_INVALID_VALUE;
  if (offset) *offset = kernel.params[index].offset;
  if (size) *size = kernel.params[index].size;
  return CUDA_SUCCESS;
}

API CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
  WITH_CONTEXT();
  Function& f = *function_of(function);
  if (which != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) return CUDA_SUCCESS;
  int most = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
  if (value < 0 || value > most) {
    return refuse(CUDA_ERROR_INVALID_VALUE, *f.kernel, std::to_string(value) + " bytes of dynamic shared memory, the device has " + std::to_string(most));
  }
  f.max_shared = value;
  return CUDA_SUCCESS;
}

// Registers are unknown here: the answer is an upper bound.
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int threads, size_t shared) {
  WITH_CONTEXT();
  if (threads < 1) return CUDA_ERROR_INVALID_VALUE;
  int by_threads = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR) / ((threads + 31) / 32 * 32);
  int by_shared = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR) / int(shared + 1024);
  *blocks = std::min({32, by_threads, by_shared});
  return CUDA_SUCCESS;
}

API CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** arguments, void** extra) {
  WITH_CONTEXT();
  if (extra) return CUDA_ERROR_NOT_SUPPORTED;
  return launch(*config, function, arguments);
}
