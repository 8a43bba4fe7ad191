/**
 * How many threads ONNX Runtime has: it does not say, but they come to its loops and can be
 * counted.
 */
#ifndef DENSEMAMBA_THREAD_COUNT_H
#define DENSEMAMBA_THREAD_COUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** All zero at first. */
typedef struct {
  _Atomic size_t most; /* that came to one loop so far */
  _Atomic size_t numLoops;
} ThreadCount;

/**
 * Threads come late to the first loops, or not at all; so one in so many later ones is looked at
 * too.
 */
enum { LOOPS_TO_LEARN = 8, LOOPS_BETWEEN_LOOKS = 128 };

/** 0 if that is not known yet. */
static inline size_t thread_count(const ThreadCount *count) {
  return atomic_load_explicit(&count->numLoops, memory_order_relaxed) < LOOPS_TO_LEARN
             ? 0
             : atomic_load_explicit(&count->most, memory_order_relaxed);
}

/** Before each loop: whether to count its threads. */
static inline bool is_loop_counted(ThreadCount *count) {
  const size_t number = atomic_fetch_add_explicit(&count->numLoops, 1, memory_order_relaxed);
  return number < LOOPS_TO_LEARN || number % LOOPS_BETWEEN_LOOKS == 0;
}

/** A loop whose threads are counted: `fn` is called through `counted_call`. */
typedef struct {
  void (*fn)(void *user, size_t index);
  void *user;
  uint64_t number; /* of this loop, none other in the process has it */
  _Atomic size_t numThreads;
} CountedLoop;

static inline CountedLoop counted_loop(void (*fn)(void *user, size_t index), void *user) {
  static _Atomic uint64_t numLoops;
  return (CountedLoop){.fn = fn, .user = user, .number = atomic_fetch_add_explicit(&numLoops, 1, memory_order_relaxed) + 1};
}

static inline void counted_call(void *data, size_t index) {
  static _Thread_local uint64_t last; /* that this thread came to */
  CountedLoop *loop = data;
  if (last != loop->number) {
    last = loop->number;
    atomic_fetch_add_explicit(&loop->numThreads, 1, memory_order_relaxed);
  }
  loop->fn(loop->user, index);
}

/** After the loop. */
static inline void count_threads(ThreadCount *count, const CountedLoop *loop) {
  const size_t came = atomic_load_explicit(&loop->numThreads, memory_order_relaxed);
  size_t most = atomic_load_explicit(&count->most, memory_order_relaxed);
  while (most < came && !atomic_compare_exchange_weak_explicit(&count->most, &most, came, memory_order_relaxed, memory_order_relaxed)) continue;
}

#endif
