// 16 bytes of a row as numbers.
#pragma once
#include "../cuda/kernel.cuh"

// Numbers in 16 bytes.
template <class T>
constexpr int PIECE = 16 / sizeof(T);

// The last argument only names the type.
__device__ __forceinline__ void unpack(const uint4& piece, float (&v)[4], float) {
  const unsigned bits[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
  for (int i = 0; i < 4; i++) v[i] = __uint_as_float(bits[i]);
}

__device__ __forceinline__ void unpack(const uint4& piece, float (&v)[8], bf16) {
  const unsigned bits[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] = __uint_as_float(bits[i] << 16);
    v[2 * i + 1] = __uint_as_float(bits[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ void unpack(const uint4& piece, float (&v)[8], f16) {
  const unsigned bits[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] = to_float(__ushort_as_half((unsigned short)(bits[i] & 0xffffu)));
    v[2 * i + 1] = to_float(__ushort_as_half((unsigned short)(bits[i] >> 16)));
  }
}
