// Addresses in the pages of a layer's cache: [block][kv head][groups of keys, then of values][row][128 bytes].
#pragma once

constexpr int KV_GROUP_BYTES = 128;
constexpr int KV_PIECE_BYTES = 16;

struct KvPages {
  char* blocks;
  int n_blocks, block_size, n_heads;
  int key_groups;
  int value_groups; // 0 if values are in the keys
};

// Where piece `piece` of a row starts, counted from the row's first key piece; the pieces of the values follow those of
// the keys. Pieces change places by row within their group, so that reading a column of rows meets all banks.
__device__ __forceinline__ char* kv_at(const KvPages& of, int slot, int head, int piece) {
  int block = slot / of.block_size, row = slot % of.block_size;
  size_t groups = (size_t)of.key_groups + of.value_groups;
  size_t group = ((size_t)block * of.n_heads + head) * groups + piece / 8;
  return of.blocks + (group * of.block_size + row) * KV_GROUP_BYTES + ((piece % 8) ^ (row % 8)) * KV_PIECE_BYTES;
}
