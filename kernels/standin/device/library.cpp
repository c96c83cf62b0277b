// What libemukernels.so exports.
#include "register.h"

extern "C" const standin::Kernel* standin_kernels(unsigned* count) {
  *count = unsigned(emu::kernels().size());
  return emu::kernels().data();
}

extern "C" const char* standin_build_id() { return STANDIN_BUILD_ID; }
