// What the emulated PTX does. Rules: PTX ISA 8.8, chapters "Asynchronous operations", "mbarrier", "wgmma", "griddepcontrol".
#include "ptx.h"

#include <random>

namespace emu {
namespace {

// ---- 16-bit floats ----

float bfloat(uint16_t bits) {
  uint32_t wide = uint32_t(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

float half(uint16_t bits) {
  uint32_t sign = uint32_t(bits & 0x8000) << 16;
  uint32_t exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  if (exponent == 0) {
    float value = ldexpf(float(fraction), -24);
    return sign ? -value : value;
  }
  uint32_t wide = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

float widen(uint16_t bits, Type type) { return type == Type::F16 ? half(bits) : bfloat(bits); }

uint16_t half_of_word(uint32_t word, int index) { return uint16_t(word >> (16 * index)); }

// ---- shared memory ----

// Shared memory as the asynchronous proxy (TMA, wgmma) sees it: generic writes appear here by fence.proxy.async.
std::vector<char> async_view;

uintptr_t shared_offset(const void* address, const char* what) {
  uintptr_t offset = static_cast<const char*>(address) - block.launch->shared;
  if (offset >= block.launch->shared_bytes) fail(716, "%s: the address is not in dynamic shared memory", what);
  return offset;
}

void check_aligned(const void* address, unsigned alignment, const char* what) {
  if (reinterpret_cast<uintptr_t>(address) % alignment) fail(716, "%s: the address is not aligned to %u bytes", what, alignment);
}

void write_async(uintptr_t offset, const char* from, size_t bytes) {
  if (offset + bytes > block.launch->shared_bytes) fail(700, "a copy ends behind dynamic shared memory");
  memcpy(block.launch->shared + offset, from, bytes);
  memcpy(async_view.data() + offset, from, bytes);
}

// ---- mbarrier ----

// As kept in the 8 bytes of a barrier. Unset shared memory has all bits set.
struct Barrier {
  uint32_t phase : 1, count : 15, pending : 15, is_unset : 1;
  int32_t bytes_due;
};
static_assert(sizeof(Barrier) == sizeof(uint64_t));

Barrier& barrier_at(uint64_t* address) {
  auto& barrier = *reinterpret_cast<Barrier*>(address);
  if (barrier.is_unset) fail(719, "an mbarrier is used before mbar_init");
  return barrier;
}

void complete_phase(Barrier& barrier) {
  if (barrier.pending || barrier.bytes_due) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.count;
  block.progress++;
}

// ---- bulk copies and tensor maps ----

// As the driver's cuTensorMapEncodeTiled writes it (tensor_map.cpp).
struct TensorMap {
  uint32_t magic;
  uint8_t rank, element_bytes, swizzle, pad;
  uint64_t base;
  uint32_t size[5];
  uint64_t stride[4];
  uint16_t box[5];
};
constexpr uint32_t kMapMagic = 0x544d4150;

struct BulkCopy {
  uintptr_t to;
  const char* from;   // null: a tile of `map`
  unsigned bytes;
  uint64_t* barrier;
  TensorMap map;
  int at[5];
  std::vector<char> staged;
};
std::vector<BulkCopy> bulk_copies;
std::minstd_rand late_rng;

uintptr_t swizzled(uintptr_t offset, int mode) {
  uintptr_t bits = mode == 1 ? 0x70 : mode == 2 ? 0x30 : mode == 3 ? 0x10 : 0;
  return offset ^ ((offset >> 3) & bits);
}

// Reads one row of the box into `row`; what lies outside of the tensor is zero.
void read_row(const BulkCopy& copy, const int* at, char* row) {
  const TensorMap& map = copy.map;
  unsigned element = map.element_bytes;
  memset(row, 0, map.box[0] * element);
  uint64_t address = map.base;
  for (unsigned d = 1; d < map.rank; d++) {
    if (at[d] < 0 || uint32_t(at[d]) >= map.size[d]) return;
    address += at[d] * map.stride[d - 1];
  }
  int64_t first = std::max<int64_t>(at[0], 0), last = std::min<int64_t>(int64_t(at[0]) + map.box[0], map.size[0]);
  if (first >= last) return;
  memcpy(row + (first - at[0]) * element, reinterpret_cast<const char*>(address) + first * element, (last - first) * element);
}

std::vector<char> read_tile(const BulkCopy& copy) {
  const TensorMap& map = copy.map;
  size_t row_bytes = size_t(map.box[0]) * map.element_bytes;
  std::vector<char> tile(copy.bytes);
  for (size_t row = 0; row < copy.bytes / row_bytes; row++) {
    int at[5];
    size_t rest = row;
    at[0] = copy.at[0];
    for (unsigned d = 1; d < map.rank; d++) {
      at[d] = copy.at[d] + int(rest % map.box[d]);
      rest /= map.box[d];
    }
    read_row(copy, at, tile.data() + row * row_bytes);
  }
  return tile;
}

std::vector<char> read_source(const BulkCopy& copy) {
  if (!copy.staged.empty()) return copy.staged;
  if (copy.from) return {copy.from, copy.from + copy.bytes};
  return read_tile(copy);
}

void finish(const BulkCopy& copy) {
  std::vector<char> bytes = read_source(copy);
  int mode = copy.from ? 0 : copy.map.swizzle;
  if (mode == 0) write_async(copy.to, bytes.data(), bytes.size());
  else for (size_t piece = 0; piece < bytes.size(); piece += 16) write_async(swizzled(copy.to + piece, mode), bytes.data() + piece, 16);
  Barrier& barrier = barrier_at(copy.barrier);
  barrier.bytes_due -= copy.bytes;
  complete_phase(barrier);
}

// Copies arrive while a thread polls, in no fixed order under a random seed.
void arrive_copies() {
  if (bulk_copies.empty() || (block.launch->seed > 1 && late_rng() % 2)) return;
  std::vector<BulkCopy> arriving = std::move(bulk_copies);
  bulk_copies.clear();
  if (block.launch->seed == 1) std::reverse(arriving.begin(), arriving.end());
  if (block.launch->seed > 1) std::shuffle(arriving.begin(), arriving.end(), late_rng);
  for (const BulkCopy& copy : arriving) finish(copy);
  block.progress++;
}

void enqueue_bulk(BulkCopy copy) {
  if (copy.to + copy.bytes > block.launch->shared_bytes) fail(700, "a copy ends behind dynamic shared memory");
  barrier_at(copy.barrier);
  memset(block.launch->shared + copy.to, 0xff, copy.bytes);
  memset(async_view.data() + copy.to, 0xff, copy.bytes);
  bulk_copies.push_back(std::move(copy));
}

void finish(const ThreadCopy& copy) {
  memset(copy.to, 0, copy.bytes);
  memcpy(copy.to, copy.staged.empty() ? copy.from : copy.staged.data(), copy.valid);
}

// ---- wgmma ----

// Element (row, k) of an operand, by its matrix descriptor.
float tile_element(const Tile& tile, unsigned row, unsigned k) {
  uint64_t descriptor = tile.descriptor;
  uintptr_t start = (descriptor & 0x3fff) << 4;
  uintptr_t leading = (descriptor >> 16 & 0x3fff) << 4;
  uintptr_t stride = (descriptor >> 32 & 0x3fff) << 4;
  int mode = descriptor >> 62;
  unsigned span = mode == 1 ? 128 : mode == 2 ? 64 : mode == 3 ? 32 : 16;   // bytes of a row of the swizzle atom
  uintptr_t offset;
  if (tile.order == Order::Transposed) offset = start + row * 2 / span * leading + k / 8 * stride + k % 8 * span + row * 2 % span;
  else if (mode == 0) offset = start + row / 8 * stride + k / 8 * leading + row % 8 * 16 + k % 8 * 2;
  else offset = start + row / 8 * stride + row % 8 * span + k * 2;
  offset = swizzled(offset, mode);
  if (offset + 2 > async_view.size()) fail(700, "wgmma: the tile ends behind dynamic shared memory");
  uint16_t bits;
  memcpy(&bits, async_view.data() + offset, sizeof bits);
  return widen(bits, tile.type);
}

// The two rows of A that this thread's accumulators belong to.
void load_a(const Product& product, float (&a)[2][16]) {
  unsigned lane = block.lane(), row = block.warp() % 4 * 16 + lane / 4;
  for (unsigned k = 0; k < 16; k++) {
    for (unsigned upper = 0; upper < 2; upper++) {
      if (!product.a_in_registers) a[upper][k] = tile_element(product.a_tile, row + upper * 8, k);
    }
  }
}

// Registers of A are spread over the four lanes of a row: lane q holds columns 2q, 2q+1, 2q+8, 2q+9.
void gather_a(const Product& product, float (&a)[2][16]) {
  unsigned first = block.lane() / 4 * 4;
  for (unsigned k = 0; k < 16; k++) {
    for (unsigned upper = 0; upper < 2; upper++) {
      struct Words { uint32_t word[4]; };
      auto words = lane_value<Words>(first + k % 8 / 2);
      a[upper][k] = widen(half_of_word(words.word[upper + k / 8 * 2], k % 2), product.b_tile.type);
    }
  }
}

void compute(Product& product, const float (&a)[2][16]) {
  for (unsigned column = 0; column < product.n_sums / 2; column++) {
    unsigned n = column / 2 * 8 + block.lane() % 4 * 2 + column % 2;
    float b[16];
    for (unsigned k = 0; k < 16; k++) b[k] = tile_element(product.b_tile, n, k);
    for (unsigned upper = 0; upper < 2; upper++) {
      float& sum = product.sums[column / 2 * 4 + upper * 2 + column % 2];
      float total = product.adds ? sum : 0.0f;
      for (unsigned k = 0; k < 16; k++) total += a[upper][k] * b[k];
      sum = total;
    }
  }
}

// Keeps the accumulators' values and leaves NaN, so that a read before the wait shows.
void hide_sums(Product& product) {
  product.saved.assign(product.sums, product.sums + product.n_sums);
  std::fill_n(product.sums, product.n_sums, NAN);
}

bool is_hidden(const std::vector<Product>& products, const float* sums) {
  for (const Product& other : products) {
    if (other.sums == sums && !other.saved.empty()) return true;
  }
  return false;
}

}  // namespace

void require(unsigned capability, const char* what) {
  if (block.launch->capability < capability) {
    fail(CUDA_ERROR_ILLEGAL_INSTRUCTION, "%s needs compute capability %u.%u", what, capability / 10, capability % 10);
  }
}

void begin_copies() {
  bulk_copies.clear();
  late_rng.seed(block.launch->seed + 1);
  async_view.assign(block.launch->shared_bytes, char(0xff));
}

// Reads the sources of all copies in flight now.
void stage_copies() {
  for (BulkCopy& copy : bulk_copies) copy.staged = read_source(copy);
  for (Fiber& fiber : block.fibers) {
    for (ThreadCopy& copy : fiber.copies) {
      if (copy.staged.empty() && copy.valid) copy.staged.assign(copy.from, copy.from + copy.valid);
    }
  }
}

void grid_wait() {
  block.current->waited_for_grid = true;
  if (block.grid_is_ready) return;
  block.current->state = State::AtGridWait;
  yield();
}

void grid_trigger() {
  if (!block.current->waited_for_grid) *block.launch->triggers_before_wait = true;
}

void load_matrix(uint32_t* registers, unsigned n, const void* row, Order order) {
  check_aligned(row, 16, "ldmatrix");
  share_in_warp(~0u, static_cast<const char*>(row));
  unsigned lane = block.lane();
  for (unsigned i = 0; i < n; i++) {
    if (order == Order::Plain) {
      memcpy(&registers[i], lane_value<const char*>(i * 8 + lane / 4) + lane % 4 * 4, 4);
      continue;
    }
    uint16_t pair[2];
    for (unsigned j = 0; j < 2; j++) memcpy(&pair[j], lane_value<const char*>(i * 8 + lane % 4 * 2 + j) + lane / 4 * 2, 2);
    memcpy(&registers[i], pair, 4);
  }
}

namespace {

struct Operands { uint32_t a[4], b[2]; };
struct Matrices { float a[16][16], b[8][16]; };   // rows of a, columns of b

// From the registers of all lanes: lane l holds pairs along k of row l / 4 and of column l / 4.
Matrices gather_operands(Type type) {
  Matrices m;
  for (unsigned lane = 0; lane < kWarp; lane++) {
    auto of_lane = lane_value<Operands>(lane);
    unsigned line = lane / 4, k = lane % 4 * 2;
    for (unsigned i = 0; i < 4; i++) {
      for (unsigned j = 0; j < 2; j++) m.a[line + i % 2 * 8][k + i / 2 * 8 + j] = widen(half_of_word(of_lane.a[i], j), type);
    }
    for (unsigned i = 0; i < 2; i++) {
      for (unsigned j = 0; j < 2; j++) m.b[line][k + i * 8 + j] = widen(half_of_word(of_lane.b[i], j), type);
    }
  }
  return m;
}

}  // namespace

void multiply_16816(float* sums, const uint32_t* a, const uint32_t* b, Type type) {
  Operands mine;
  memcpy(mine.a, a, sizeof mine.a);
  memcpy(mine.b, b, sizeof mine.b);
  share_in_warp(~0u, mine);
  const Matrices& m = once_in_warp<Matrices>([type] { return gather_operands(type); });
  unsigned row = block.lane() / 4, column = block.lane() % 4 * 2;
  for (unsigned i = 0; i < 4; i++) {
    float total = sums[i];
    for (unsigned k = 0; k < 16; k++) total += m.a[row + i / 2 * 8][k] * m.b[column + i % 2][k];
    sums[i] = total;
  }
}

void copy_async(void* to, const void* from, unsigned bytes, unsigned valid) {
  check_aligned(to, bytes, "cp.async");
  check_aligned(from, bytes, "cp.async");
  if (valid > bytes) fail(719, "cp.async: %u valid bytes of %u", valid, bytes);
  Fiber* fiber = block.current;
  fiber->copies.push_back({fiber->copy_group, static_cast<char*>(to), static_cast<const char*>(from), bytes, valid, {}});
  memset(to, 0xff, bytes);
}

void commit_copies() { block.current->copy_group++; }

void wait_copies(int groups_left) {
  Fiber* fiber = block.current;
  size_t done = 0;
  for (; done < fiber->copies.size() && fiber->copies[done].group < fiber->copy_group - groups_left; done++) finish(fiber->copies[done]);
  fiber->copies.erase(fiber->copies.begin(), fiber->copies.begin() + done);
}

void init_barrier(uint64_t* barrier, unsigned count) {
  if (count == 0 || count >= 1 << 15) fail(719, "mbar_init: a count of %u", count);
  *reinterpret_cast<Barrier*>(barrier) = {0, count, count, 0, 0};
}

void arrive(uint64_t* address, unsigned bytes) {
  Barrier& barrier = barrier_at(address);
  if (!barrier.pending) fail(719, "mbarrier: more arrivals than its count of %u", barrier.count);
  barrier.bytes_due += bytes;
  barrier.pending--;
  complete_phase(barrier);
}

void wait_barrier(uint64_t* address, unsigned parity) {
  while (barrier_at(address).phase == (parity & 1)) {
    poll();
    arrive_copies();
  }
}

void load_bulk(void* to, const void* from, unsigned bytes, uint64_t* barrier) {
  require(90, "cp.async.bulk");
  uintptr_t offset = shared_offset(to, "cp.async.bulk");
  if ((offset | reinterpret_cast<uintptr_t>(from) | bytes) % 16) fail(716, "cp.async.bulk: an address or a size is not a multiple of 16 bytes");
  BulkCopy copy{};
  copy.to = offset, copy.from = static_cast<const char*>(from), copy.bytes = bytes, copy.barrier = barrier;
  enqueue_bulk(std::move(copy));
}

void load_tile(void* to, const CUtensorMap* map, uint64_t* barrier, std::initializer_list<int> at) {
  require(90, "cp.async.bulk.tensor");
  BulkCopy copy{};
  memcpy(&copy.map, map, sizeof copy.map);
  if (copy.map.magic != kMapMagic) fail(715, "TMA: the argument is no encoded tensor map");
  if (copy.map.rank != at.size()) fail(715, "TMA: %zu coordinates for a tensor map of rank %u", at.size(), copy.map.rank);
  copy.to = shared_offset(to, "TMA");
  unsigned alignment = copy.map.swizzle == 1 ? 1024 : 128;
  if (copy.to % alignment) fail(716, "TMA: the address in shared memory is not a multiple of %u", alignment);
  copy.bytes = copy.map.element_bytes;
  for (unsigned d = 0; d < copy.map.rank; d++) copy.bytes *= copy.map.box[d];
  std::copy(at.begin(), at.end(), copy.at);
  copy.barrier = barrier;
  enqueue_bulk(std::move(copy));
}

void fence_async_proxy() {
  require(90, "fence.proxy.async");
  memcpy(async_view.data(), block.launch->shared, async_view.size());
}

uint64_t tile_descriptor(const void* tile, unsigned leading_bytes, unsigned stride_bytes) {
  uint64_t start = shared_offset(tile, "matrix descriptor");
  return start >> 4 | uint64_t(leading_bytes >> 4) << 16 | uint64_t(stride_bytes >> 4) << 32 | uint64_t(1) << 62;
}

void begin_product(Product product) {
  require(90, "wgmma");
  Fiber* fiber = block.current;
  if (!fiber->fenced_products) fail(719, "wgmma without wgmma_fence before the group");
  product.group = fiber->product_group;
  if (!is_hidden(fiber->products, product.sums)) hide_sums(product);
  float a[2][16];
  if (product.a_in_registers) {
    struct Words { uint32_t word[4]; } mine;
    memcpy(mine.word, product.a, sizeof mine.word);
    share_in_warp(~0u, mine);
    gather_a(product, a);
    product.a_rows.assign(&a[0][0], &a[0][0] + 32);
  } else {
    warp_barrier(~0u);
  }
  fiber->products.push_back(std::move(product));
}

void fence_products() {
  require(90, "wgmma.fence");
  block.current->fenced_products = true;
}

void commit_products() {
  block.current->product_group++;
  block.current->fenced_products = false;
}

void wait_products(int groups_left) {
  Fiber* fiber = block.current;
  size_t done = 0;
  for (; done < fiber->products.size() && fiber->products[done].group < fiber->product_group - groups_left; done++) {
    Product& product = fiber->products[done];
    if (!product.saved.empty()) std::copy(product.saved.begin(), product.saved.end(), product.sums);
    float a[2][16];
    if (product.a_in_registers) std::copy(product.a_rows.begin(), product.a_rows.end(), &a[0][0]);
    else load_a(product, a);
    compute(product, a);
  }
  fiber->products.erase(fiber->products.begin(), fiber->products.begin() + done);
  for (Product& product : fiber->products) {
    if (!is_hidden(fiber->products, product.sums)) hide_sums(product);
  }
  asm volatile("" ::: "memory");
}

void arrive_named(unsigned id, unsigned n_threads) {
  if (id == 0 || id >= kNamedBarriers) fail(719, "named barrier %u: 1 to %u exist", id, kNamedBarriers - 1);
  if (n_threads == 0 || n_threads % kWarp) fail(719, "named barrier %u: %u threads are no whole warps", id, n_threads);
  NamedBarrier& barrier = block.barriers[id];
  if (barrier.arrived && barrier.expected != n_threads) fail(719, "named barrier %u: threads give %u and %u as its count", id, barrier.expected, n_threads);
  barrier.expected = n_threads;
  if (++barrier.arrived < n_threads) return;
  barrier.arrived = 0;
  barrier.generation++;
  block.progress++;
}

void sync_named(unsigned id, unsigned n_threads) {
  unsigned generation = block.barriers[id % kNamedBarriers].generation;
  arrive_named(id, n_threads);
  while (block.barriers[id].generation == generation) poll();
}

}  // namespace emu
