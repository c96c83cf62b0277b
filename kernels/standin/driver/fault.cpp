// Execution of one operation, and how a fault in it becomes the context's error.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "state.h"

namespace standin {
namespace {

constexpr int kWatchdogSignal = 44;   // a real-time signal that nothing else uses
constexpr size_t kSignalStack = 256 << 10;

sigjmp_buf escape;
thread_local bool is_executing;   // other threads' faults are not ours
const Operation* running;
Device* running_device;
void (*locate)(Where*);   // set while a kernel runs
timer_t watchdog;
pid_t watchdog_thread;
bool is_watched;
struct sigaction previous_actions[NSIG];

void pass_on(int signal_number, siginfo_t* info, void* user) {
  const struct sigaction& previous = previous_actions[signal_number];
  if (previous.sa_flags & SA_SIGINFO) previous.sa_sigaction(signal_number, info, user);
  else signal(signal_number, SIG_DFL);
}

void on_memory_fault(int signal_number, siginfo_t* info, void* user) {
  uint64_t address = reinterpret_cast<uint64_t>(info->si_addr);
  constexpr int kWriteBit = 2;   // of the page fault's error code
  bool is_write = static_cast<ucontext_t*>(user)->uc_mcontext.gregs[REG_ERR] & kWriteBit;
  if (!is_executing) {
    if (!find_allocation(address)) return pass_on(signal_number, info, user);
    report(nullptr, "host code touches device memory at 0x%lx: %s", address, describe_address(address).c_str());
    _exit(98);
  }
  if (open_on_fault(address, is_write ? Access::Write : Access::Read)) return;
  char text[400];
  const char* action = is_write ? "writes" : "reads";
  if (is_write && recording == Recording::WritesForbidden && find_allocation(address)) action = "before gdc_wait writes";
  snprintf(text, sizeof text, "%s an illegal address 0x%lx: %s", action, address, describe_address(address).c_str());
  raise_fault(CUDA_ERROR_ILLEGAL_ADDRESS, text);
}

void on_bad_instruction(int signal_number, siginfo_t* info, void* user) {
  if (!is_executing) return pass_on(signal_number, info, user);
  if (signal_number == SIGFPE) raise_fault(CUDA_ERROR_LAUNCH_FAILED, "divides an integer by zero");
  raise_fault(CUDA_ERROR_ILLEGAL_ADDRESS, "indexes outside of a fixed-size array");
}

void on_watchdog(int, siginfo_t*, void*) {
  if (is_executing && is_watched) raise_fault(CUDA_ERROR_LAUNCH_TIMEOUT, "runs longer than the watchdog allows: an endless loop?");
}

// Fibers have small stacks, and so has Rust's signal stack.
void use_own_signal_stack() {
  static thread_local bool is_set;
  if (is_set) return;
  stack_t stack{};
  stack.ss_size = kSignalStack;
  stack.ss_sp = malloc(kSignalStack);   // stays: the thread may end after this library's data
  sigaltstack(&stack, nullptr);
  is_set = true;
}

// Counts the time of this thread, not that of a busy machine.
void set_watchdog(int64_t seconds) {
  pid_t thread = pid_t(syscall(SYS_gettid));
  if (watchdog_thread != thread) {
    if (watchdog_thread) timer_delete(watchdog);
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = kWatchdogSignal;
    event._sigev_un._tid = thread;
    if (timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &watchdog)) return;
    watchdog_thread = thread;
  }
  itimerspec when{};
  when.it_value.tv_sec = seconds;
  timer_settime(watchdog, 0, &when, nullptr);
}

}  // namespace

void install_handlers() {
  struct sigaction action{};
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  action.sa_sigaction = on_memory_fault;
  for (int number : {SIGSEGV, SIGBUS}) sigaction(number, &action, &previous_actions[number]);
  action.sa_sigaction = on_bad_instruction;
  for (int number : {SIGILL, SIGFPE}) sigaction(number, &action, &previous_actions[number]);
  action.sa_sigaction = on_watchdog;
  sigaction(kWatchdogSignal, &action, nullptr);
}

void begin_kernel_run(void (*where)(Where*), int64_t watchdog_seconds) {
  locate = where;
  is_watched = true;
  set_watchdog(watchdog_seconds);
}

void end_kernel_run() {
  locate = nullptr;
  is_watched = false;
  set_watchdog(0);
}

void raise_fault(int code, const std::string& message) {
  is_watched = false;
  if (locate) {
    Where w{};
    locate(&w);
    report(running_device, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u): %s", running->name.c_str(), w.block[0], w.block[1], w.block[2], w.thread[0],
           w.thread[1], w.thread[2], message.c_str());
  } else {
    report(running_device, "%s: %s", running->name.c_str(), message.c_str());
  }
  siglongjmp(escape, code);
}

// Runs an operation. Its error stays with the context until the context is reset.
CUresult execute(CUstream stream, Operation& operation) {
  use_own_signal_stack();
  CUcontext context = stream->context;
  running = &operation;
  running_device = &device_of(context);
  volatile int code = sigsetjmp(escape, 1);
  if (code == 0) {
    is_executing = true;
    code = operation.run(stream);
  } else {
    if (locate) end_kernel_run();
    recording = Recording::Off;
  }
  close_chunks();
  is_executing = false;
  if (code) context->sticky = CUresult(int(code));
  return CUresult(int(code));
}

}  // namespace standin
