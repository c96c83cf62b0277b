// Tensor maps: 128 bytes that only the emulated TMA reads (device/ptx.cpp has the same struct).
#include <cstring>

#include "state.h"

namespace {

struct TensorMap {
  uint32_t magic;
  uint8_t rank, element_bytes, swizzle, pad;
  uint64_t base;
  uint32_t size[5];
  uint64_t stride[4];
  uint16_t box[5];
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap));

unsigned element_bytes(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8: return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16: case CU_TENSOR_MAP_DATA_TYPE_FLOAT16: case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: return 2;
    case CU_TENSOR_MAP_DATA_TYPE_INT32: case CU_TENSOR_MAP_DATA_TYPE_UINT32: case CU_TENSOR_MAP_DATA_TYPE_FLOAT32: return 4;
    default: return 0;
  }
}

// As the modes of a matrix descriptor: 1 is 128 bytes, 2 is 64, 3 is 32.
int swizzle_mode(CUtensorMapSwizzle swizzle) {
  switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE: return 0;
    case CU_TENSOR_MAP_SWIZZLE_128B: return 1;
    case CU_TENSOR_MAP_SWIZZLE_64B: return 2;
    case CU_TENSOR_MAP_SWIZZLE_32B: return 3;
    default: return -1;
  }
}

}  // namespace

API CUresult cuTensorMapEncodeTiled(CUtensorMap* out, CUtensorMapDataType type, cuuint32_t rank, void* base, const cuuint64_t* sizes, const cuuint64_t* strides,
                                    const cuuint32_t* box, const cuuint32_t* steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                    CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  unsigned bytes = element_bytes(type);
  int mode = swizzle_mode(swizzle);
  auto refuse = [](const char* reason) {
    standin::report(nullptr, "cuTensorMapEncodeTiled: %s", reason);
    return CUDA_ERROR_INVALID_VALUE;
  };
  if (rank < 1 || rank > 5 || !bytes || mode < 0 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) {
    return refuse("this rank, type, swizzle or interleave is not emulated");
  }
  if (reinterpret_cast<uint64_t>(base) % 16) return refuse("the address is not a multiple of 16");
  TensorMap map{0x544d4150, uint8_t(rank), uint8_t(bytes), uint8_t(mode), 0, reinterpret_cast<uint64_t>(base), {}, {}, {}};
  for (unsigned d = 0; d < rank; d++) {
    if (!sizes[d] || sizes[d] > uint64_t(1) << 32) return refuse("a size is 0 or over 2^32");
    if (!box[d] || box[d] > 256 || steps[d] != 1) return refuse("a side of the box is 0 or over 256, or its step is not 1");
    map.size[d] = uint32_t(sizes[d]);
    map.box[d] = uint16_t(box[d]);
    if (d + 1 == rank) break;
    if (strides[d] % 16 || !strides[d] || strides[d] >= uint64_t(1) << 40) return refuse("a stride is no multiple of 16 bytes, 0, or over 2^40");
    map.stride[d] = strides[d];
  }
  size_t row = size_t(box[0]) * bytes, most = mode == 1 ? 128 : mode == 2 ? 64 : mode == 3 ? 32 : SIZE_MAX;
  if (row % 16 || row > most) return refuse("the box's row is no multiple of 16 bytes, or is wider than the swizzle");
  memset(out, 0, sizeof *out);
  memcpy(out, &map, sizeof map);
  return CUDA_SUCCESS;
}
