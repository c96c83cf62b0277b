// The scheduler of fibers. Linked once into libemukernels.so.
#include "fiber.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <link.h>
#include <random>
#include <sys/mman.h>

#include <algorithm>

#if !defined(__x86_64__)
#error "the stand-in switches fibers in x86-64 assembly"
#endif

asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch,.-emu_switch
)");

namespace emu {
namespace {

constexpr size_t kStack = 64 << 10;
constexpr size_t kPage = 4096;
// A launch that overlaps runs this many of its blocks ahead of the kernels before it.
constexpr unsigned kBlocksAhead = 2;
// Copies arrive in a random one of the turns of a thread that polls: so many rounds without it are a deadlock.
constexpr unsigned kPollRounds = 64;

std::minstd_rand order_rng;

void enter_thread() {
  (*block.body)();
  Fiber* fiber = block.current;
  if (block.launch->overlaps && !fiber->waited_for_grid) {
    fail(719, "a thread of an overlapping launch returned without gdc_wait");
  }
  if (!fiber->products.empty()) fail(719, "a thread returned before wgmma_wait");
  fiber->state = State::Done;
  block.progress++;
  yield();
  fail(719, "a thread that returned was resumed");
}

char* stack_of(unsigned index) {
  static std::vector<char*> stacks;
  while (stacks.size() <= index) {
    void* memory = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail(2, "no memory for the stacks of fibers");
    mprotect(memory, kPage, PROT_NONE);
    stacks.push_back(static_cast<char*>(memory) + kPage);
  }
  return stacks[index];
}

void start_fiber(unsigned index) {
  Fiber& fiber = block.fibers[index];
  const Index3& n = block.n_threads;
  fiber.thread = {index % n.x, index / n.x % n.y, index / (n.x * n.y)};
  fiber.index = index;
  fiber.state = State::Run;
  fiber.waited_for_grid = fiber.fenced_products = false;
  fiber.copy_group = fiber.product_group = 0;
  fiber.copies.clear();
  fiber.products.clear();
  // Spread over the sets of the cache: stacks are a power of two apart.
  void** top = reinterpret_cast<void**>(stack_of(index) + kStack - 64 - index % 61 * 192);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(enter_thread);
  for (int saved = 0; saved < 6; saved++) *--top = nullptr;
  fiber.stack_pointer = top;
}

bool can_run(const Fiber& fiber) { return fiber.state == State::Run || fiber.state == State::Poll; }

// Gives each lane of a warp that can run one turn. Returns whether one did more than poll.
bool turn_of_warp(unsigned first, unsigned count) {
  unsigned seed = block.launch->seed;
  unsigned start = seed > 1 ? order_rng() % count : 0;
  bool backwards = seed == 1 || (seed > 1 && order_rng() % 2);
  bool advanced = false;
  for (unsigned i = 0; i < count; i++) {
    unsigned lane = (i + start) % count;
    Fiber& fiber = block.fibers[first + (backwards ? count - 1 - lane : lane)];
    if (!can_run(fiber)) continue;
    bool polled = fiber.state == State::Poll;
    fiber.state = State::Run;
    block.current = &fiber;
    emu_switch(&block.scheduler, fiber.stack_pointer);
    advanced |= !polled || fiber.state != State::Poll;
  }
  return advanced;
}

// Lets the lanes go whose warp operation is complete. Returns whether there were any.
bool complete_warp_operation(unsigned first, unsigned count) {
  uint32_t waiting = 0, living = 0;
  for (unsigned lane = 0; lane < count; lane++) {
    State state = block.fibers[first + lane].state;
    waiting |= uint32_t(state == State::AtWarpBarrier) << lane;
    living |= uint32_t(state != State::Done) << lane;
  }
  bool completed = false;
  for (unsigned lane = 0; waiting && lane < count; lane++) {
    if (!((waiting >> lane) & 1)) continue;
    uint32_t mask = block.fibers[first + lane].mask;
    uint32_t members = mask & living;
    if ((members & waiting) != members) continue;
    for (unsigned other = 0; other < count; other++) {
      if (!((members >> other) & 1)) continue;
      Fiber& fiber = block.fibers[first + other];
      if (fiber.mask != mask) fail(719, "lanes of one warp operation gave different masks");
      fiber.state = State::Run;
      memcpy(block.taken[first / kWarp][other], block.given[first / kWarp][other], kLaneBytes);
    }
    block.operation[first / kWarp]++;
    waiting &= ~members;
    completed = true;
  }
  return completed;
}

// Runs a warp until it waits for others. Returns whether it advanced.
bool run_warp(unsigned first, unsigned count) {
  bool advanced = false;
  for (;;) {
    bool turned = turn_of_warp(first, count);
    bool completed = complete_warp_operation(first, count);
    advanced |= turned || completed;
    if (!completed) return advanced;
    if (block.launch->seed > 1 && order_rng() % 4 == 0) return true;   // let another warp go first
  }
}

unsigned count(State state) {
  unsigned n = 0;
  for (const Fiber& fiber : block.fibers) n += fiber.state == state;
  return n;
}

bool complete_block_barrier() {
  unsigned waiting = count(State::AtBlockBarrier);
  if (!waiting || waiting + count(State::Done) != block.fibers.size()) return false;
  int line = 0;
  for (Fiber& fiber : block.fibers) {
    if (fiber.state != State::AtBlockBarrier) continue;
    if (line && fiber.line != line) {
      fail(719, "divergent __syncthreads: threads of one block wait at lines %d and %d", line, fiber.line);
    }
    line = fiber.line;
    fiber.state = State::Run;
  }
  return true;
}

// Every thread that can has come to gdc_wait: what they read so far they read without the results of the kernels before.
bool release_grid_wait() {
  if (!count(State::AtGridWait)) return false;
  stage_copies();
  block.launch->show_unfinished();
  block.grid_is_ready = true;
  for (Fiber& fiber : block.fibers) {
    if (fiber.state == State::AtGridWait) fiber.state = State::Run;
  }
  return true;
}

void run_block() {
  unsigned n = block.n_threads.x * block.n_threads.y * block.n_threads.z;
  block.fibers.resize(n);
  for (unsigned i = 0; i < n; i++) start_fiber(i);
  memset(block.barriers, 0, sizeof block.barriers);
  begin_copies();
  std::vector<unsigned> warps((n + kWarp - 1) / kWarp);
  for (unsigned w = 0; w < warps.size(); w++) warps[w] = block.launch->seed == 1 ? warps.size() - 1 - w : w;
  unsigned idle_rounds = 0;
  while (count(State::Done) != n) {
    if (block.launch->seed > 1) std::shuffle(warps.begin(), warps.end(), order_rng);
    uint64_t before = block.progress;
    bool advanced = false;
    for (unsigned warp : warps) advanced |= run_warp(warp * kWarp, std::min(kWarp, n - warp * kWarp));
    if (complete_block_barrier() || advanced || block.progress != before) {
      idle_rounds = 0;
      continue;
    }
    if (++idle_rounds < kPollRounds && count(State::Poll)) continue;
    if (release_grid_wait()) continue;
    if (count(State::AtBlockBarrier)) fail(719, "divergent __syncthreads: a thread never comes to the barrier");
    fail(702, "deadlock: every thread waits");
  }
}

struct Segment {
  void* start;
  size_t bytes;
};

// The thread-local segment of this library: it holds the static shared memory of all kernels and nothing else.
int find_thread_segment(dl_phdr_info* info, size_t, void* out) {
  bool is_ours = false;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& header = info->dlpi_phdr[i];
    uintptr_t start = info->dlpi_addr + header.p_vaddr;
    is_ours |= header.p_type == PT_LOAD && reinterpret_cast<uintptr_t>(&block) - start < header.p_memsz;
  }
  if (!is_ours) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_TLS) *static_cast<Segment*>(out) = {info->dlpi_tls_data, header.p_memsz};
  }
  return 1;
}

thread_local volatile char thread_segment_anchor;   // makes the loader create this thread's segment

std::vector<uint64_t> order_of_blocks() {
  const Index3& n = block.n_blocks;
  uint64_t total = uint64_t(n.x) * n.y * n.z;
  std::vector<uint64_t> order(total);
  for (uint64_t i = 0; i < total; i++) order[i] = block.launch->seed == 1 ? total - 1 - i : i;
  if (block.launch->seed > 1) std::shuffle(order.begin(), order.end(), order_rng);
  return order;
}

}  // namespace

void fail(int code, const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  if (n >= 0 && size_t(n) < sizeof message) {
    snprintf(message + n, sizeof message - n,
             " (threads: running %u, polling %u, at __syncthreads %u, at a warp operation %u, at gdc_wait %u, returned %u)",
             count(State::Run), count(State::Poll), count(State::AtBlockBarrier), count(State::AtWarpBarrier),
             count(State::AtGridWait), count(State::Done));
  }
  block.launch->fail(code, message);
  abort();
}

void run_grid(const standin::Launch* launch, const std::function<void()>& body) {
  block.launch = launch;
  block.body = &body;
  block.n_threads = {launch->block[0], launch->block[1], launch->block[2]};
  block.n_blocks = {launch->grid[0], launch->grid[1], launch->grid[2]};
  block.progress = 0;
  order_rng.seed(launch->seed + 1);
  thread_segment_anchor = 0;
  Segment statics{nullptr, 0};
  dl_iterate_phdr(find_thread_segment, &statics);
  unsigned ahead = launch->overlaps ? kBlocksAhead : 0;
  for (uint64_t index : order_of_blocks()) {
    const Index3& n = block.n_blocks;
    block.index = {unsigned(index % n.x), unsigned(index / n.x % n.y), unsigned(index / (uint64_t(n.x) * n.y))};
    // Shared memory starts unset: NaN in every float type.
    memset(launch->shared, 0xff, launch->shared_bytes);
    if (statics.start) memset(statics.start, 0xff, statics.bytes);
    block.grid_is_ready = ahead == 0;
    if (ahead) {
      launch->hide_unfinished();
      ahead--;
    }
    run_block();
  }
}

}  // namespace emu

extern "C" void standin_where(standin::Where* where) {
  const emu::Block& b = emu::block;
  *where = {{b.index.x, b.index.y, b.index.z}, {0, 0, 0}};
  if (b.current) *where = {{b.index.x, b.index.y, b.index.z}, {b.current->thread.x, b.current->thread.y, b.current->thread.z}};
}
