/** ThreadCount: threads that come to a loop are counted, those that come late once they do. */
#include "../thread_count.h"

#include "fake_host.h"

static void do_nothing(void *user, size_t index) { (void)user, (void)index; }

/** A loop that `numThreads` come to, each for several of its tasks. */
static void *take_tasks(void *loop) {
  for (size_t i = 0; i < 5; i++) counted_call(loop, i);
  return NULL;
}

static void run_loop(ThreadCount *count, int numThreads) {
  if (!is_loop_counted(count)) return;
  CountedLoop loop = counted_loop(do_nothing, NULL);
  pthread_t threads[FAKE_THREADS];
  for (int i = 1; i < numThreads; i++) CHECK(pthread_create(&threads[i], NULL, take_tasks, &loop) == 0);
  take_tasks(&loop);
  for (int i = 1; i < numThreads; i++) pthread_join(threads[i], NULL);
  count_threads(count, &loop);
}

int main(void) {
  ThreadCount count = {0};
  for (int i = 0; i < LOOPS_TO_LEARN; i++) {
    CHECK(thread_count(&count) == 0);
    run_loop(&count, i == 3 ? 2 : 1);
  }
  CHECK(thread_count(&count) == 2);
  for (int i = 0; i < LOOPS_BETWEEN_LOOKS; i++) run_loop(&count, FAKE_THREADS);
  CHECK(thread_count(&count) == FAKE_THREADS);
  for (int i = 0; i < LOOPS_BETWEEN_LOOKS; i++) run_loop(&count, 1);
  CHECK(thread_count(&count) == FAKE_THREADS);
  return 0;
}
