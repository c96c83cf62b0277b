// The list of kernels. build.py appends a line to each kernel file that adds its __global__ functions.
#pragma once
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "fiber.h"

namespace emu {

inline std::vector<standin::Kernel>& kernels() {
  static auto* list = new std::vector<standin::Kernel>;
  return *list;
}

// Offsets as in a C struct of the parameters.
template <class... A>
const standin::Param* params_of() {
  static standin::Param params[sizeof...(A) + 1];
  size_t offset = 0;
  unsigned i = 0;
  auto add = [&](size_t alignment, size_t size, bool is_pointer) {
    offset = (offset + alignment - 1) / alignment * alignment;
    params[i++] = {offset, size, is_pointer};
    offset += size;
  };
  (add(alignof(A), sizeof(A), std::is_pointer_v<A>), ...);
  return params;
}

template <auto kernel>
struct Runner;

template <class... A, void (*kernel)(A...)>
struct Runner<kernel> {
  template <size_t... I>
  static void run_with(const standin::Launch* launch, void* const* arguments, std::index_sequence<I...>) {
    std::tuple<std::remove_cv_t<A>...> values{*reinterpret_cast<const std::remove_cv_t<A>*>(arguments[I])...};
    run_grid(launch, [&] { kernel(std::get<I>(values)...); });
  }
  static void run(const standin::Launch* launch, void* const* arguments) {
    run_with(launch, arguments, std::index_sequence_for<A...>{});
  }
  static bool add(const char* name, unsigned max_threads) {
    kernels().push_back({name, sizeof...(A), params_of<std::remove_cv_t<A>...>(), max_threads, run});
    return true;
  }
};

// Of the arguments of __launch_bounds__.
constexpr unsigned max_threads(unsigned threads, unsigned = 0) { return threads; }

}  // namespace emu
