/**
 * CUDA as far as the kernels use it, on one thread of a CPU: so that the same source runs in tests,
 * under sanitizers, without a device. Blocks run one after another; the threads of a block are
 * contexts of their own that take turns at barriers and shuffles. A barrier that some thread never
 * comes to, and a shuffle that a lane stays away from, end the program.
 *
 * What it cannot show: races between threads (each runs undisturbed from one barrier to the next),
 * and speed.
 */
#ifndef DENSEMAMBA_CUDA_EMULATION_H
#define DENSEMAMBA_CUDA_EMULATION_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../simd.h"

#define __global__ static
#define __host__
#define __device__
#define __launch_bounds__(...)
/* Of the block that runs: there is one at a time. */
#define __shared__ static thread_local

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

/**
 * Of the last launch: how often the thread that waited most came to a barrier or a shuffle. For
 * tests.
 */
extern "C" __attribute__((weak)) unsigned dm_emulated_waits;
unsigned dm_emulated_waits;

#ifdef __has_feature
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1 /* as GCC has it */
#endif
#endif

/* AddressSanitizer has to see a change of stacks. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
/**
 * Keeps what a function must preserve on its own stack, whose end goes into `from`, and takes the
 * same from the stack `to`, to go on there. swapcontext does that too, and asks the kernel for the
 * signals' mask at each switch, which takes longer than all the rest of the emulation.
 */
extern "C" __attribute__((visibility("hidden"))) void dm_swap_stacks(void **from, void *to);
asm(".pushsection .text\n"
    ".weak dm_swap_stacks\n"
    ".hidden dm_swap_stacks\n"
    ".type dm_swap_stacks, @function\n"
    "dm_swap_stacks:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".popsection\n");
#define DM_OWN_STACKS
#else
#include <ucontext.h>
#endif

namespace emulation {

#ifdef DM_OWN_STACKS
/** Where a thread stands: its registers are on its stack. */
struct Context {
  void *stack;
};
static inline void swap_contexts(Context *from, Context *to) { dm_swap_stacks(&from->stack, to->stack); }

/** Of a thread that begins with `main`, which must not return. */
static inline void make_context(Context *context, char *stack, size_t numBytes, void (*main)()) {
  void **end = (void **)(((uintptr_t)stack + numBytes) & ~(uintptr_t)15);
  end[-1] = nullptr; /* where `main` would return to: a stack is aligned before a call */
  end[-2] = (void *)main;
  for (int i = 3; i <= 8; i++) end[-i] = nullptr; /* registers */
  context->stack = end - 8;
}
#else
struct Context {
  ucontext_t registers;
};
static inline void swap_contexts(Context *from, Context *to) { swapcontext(&from->registers, &to->registers); }

static inline void make_context(Context *context, char *stack, size_t numBytes, void (*main)()) {
  getcontext(&context->registers);
  context->registers.uc_stack.ss_sp = stack;
  context->registers.uc_stack.ss_size = numBytes;
  context->registers.uc_link = nullptr;
  makecontext(&context->registers, main, 0);
}
#endif

constexpr unsigned WARP = 32, MAX_THREADS = 1024, MAX_GRID = 65535;
constexpr size_t STACK_BYTES = 64 * 1024;

/** A place where `size` threads wait for one another, again and again. */
struct Barrier {
  unsigned size, numArrived, round;
};

struct Warp {
  Barrier barrier;
  float values[WARP];
};

struct Thread {
  Context context;
  dim3 index = 0;
  unsigned number = 0; /* in the block */
  const Barrier *waitsFor = nullptr;
  unsigned round = 0; /* of the barrier, when it came there */
  unsigned numWaits = 0;
  bool isDone = false;
  char stack[STACK_BYTES];
};

struct Block {
  Context scheduler;
  dim3 index = 0;
  unsigned numThreads;
  Thread *threads;
  Warp warps[MAX_THREADS / WARP];
  Barrier barrier;
  Thread *running;
  void (*call)(const void *kernel);
  const void *kernel;
};

static thread_local Block *block;

[[noreturn]] static inline void fail(const char *what) {
  fprintf(stderr, "CUDA emulation: %s\n", what);
  abort();
}

static inline void wait_at(Barrier *barrier) {
  if (++block->running->numWaits > dm_emulated_waits) dm_emulated_waits = block->running->numWaits;
  if (++barrier->numArrived == barrier->size) {
    barrier->numArrived = 0;
    barrier->round++;
    return;
  }
  block->running->waitsFor = barrier;
  block->running->round = barrier->round;
  swap_contexts(&block->running->context, &block->scheduler);
}

static inline void thread_main() {
  block->call(block->kernel);
  block->running->isDone = true;
  swap_contexts(&block->running->context, &block->scheduler); /* for good */
}

static inline void start_thread(Thread *thread, unsigned number, dim3 size) {
  thread->index = dim3(number % size.x, number / size.x % size.y, number / size.x / size.y);
  thread->number = number;
  thread->waitsFor = nullptr;
  thread->isDone = false;
  thread->numWaits = 0;
  make_context(&thread->context, thread->stack, STACK_BYTES, thread_main);
}

/** Lets every thread that can go on do so, until all are done. */
static inline void run_block(dim3 size) {
  block->barrier = {block->numThreads, 0, 0};
  for (unsigned i = 0; i < MAX_THREADS / WARP; i++) block->warps[i].barrier = {WARP, 0, 0};
  for (unsigned i = 0; i < block->numThreads; i++) start_thread(&block->threads[i], i, size);
  for (unsigned numDone = 0; numDone < block->numThreads;) {
    bool hasMoved = false;
    for (unsigned i = 0; i < block->numThreads; i++) {
      Thread *thread = &block->threads[i];
      if (thread->isDone || (thread->waitsFor != nullptr && thread->waitsFor->round == thread->round)) continue;
      thread->waitsFor = nullptr;
      block->running = thread;
      swap_contexts(&block->scheduler, &thread->context);
      hasMoved = true;
      if (thread->isDone) numDone++;
    }
    if (!hasMoved) fail("a thread waits for one that does not come");
  }
}

template <typename Kernel>
void launch(dim3 grid, dim3 size, const Kernel &kernel) {
  const size_t numThreads = (size_t)size.x * size.y * size.z;
  if (numThreads == 0 || numThreads > MAX_THREADS) fail("a block has 1 to 1,024 threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > MAX_GRID || grid.z > MAX_GRID) fail("a grid of that size is refused");
  Block b = {};
  b.numThreads = (unsigned)numThreads;
  b.threads = new Thread[numThreads];
  b.call = [](const void *kernel) { (*static_cast<const Kernel *>(kernel))(); };
  b.kernel = &kernel;
  block = &b;
  dm_emulated_waits = 0;
  for (unsigned z = 0; z < grid.z; z++) {
    for (unsigned y = 0; y < grid.y; y++) {
      for (unsigned x = 0; x < grid.x; x++) {
        b.index = dim3(x, y, z);
        run_block(size);
      }
    }
  }
  block = nullptr;
  delete[] b.threads;
}

static inline float shuffle_xor(float value, unsigned mask) {
  Warp *warp = &block->warps[block->running->number / WARP];
  const unsigned lane = block->running->number % WARP;
  warp->values[lane] = value;
  wait_at(&warp->barrier);
  const float other = warp->values[lane ^ mask];
  wait_at(&warp->barrier); /* before anyone writes the next */
  return other;
}

}  // namespace emulation

#define threadIdx (emulation::block->running->index)
#define blockIdx (emulation::block->index)
#define __syncthreads() emulation::wait_at(&emulation::block->barrier)
#define __syncwarp() emulation::wait_at(&emulation::block->warps[emulation::block->running->number / emulation::WARP].barrier)
#define __shfl_xor_sync(lanes, value, mask) ((void)(lanes), emulation::shuffle_xor(value, mask))
static inline uint16_t dm_convert_to_half(float x) { return vh_of(vf_all(x))[0]; }
static inline float dm_float_of(uint16_t bits) { return vf_of(vh{bits})[0]; }

#ifdef DM_CUDA_SIMULATION
#include "kernels.h" /* test/cuda-device/: a device that is simulated, under ONNX Runtime's own provider */
#else

/** A host: there are no streams. */
#define DM_WITHOUT_DEVICE
#define DM_LAUNCH(kernel, grid, block, stream, ...) \
  ((void)(stream), emulation::launch(grid, block, [=] { kernel(__VA_ARGS__); }))

typedef void *cudaStream_t;
typedef int cudaError_t;
enum { cudaSuccess = 0 };

static inline cudaError_t cudaGetLastError(void) { return cudaSuccess; }
static inline const char *cudaGetErrorString(cudaError_t) { return "no error"; }

#endif

#endif
