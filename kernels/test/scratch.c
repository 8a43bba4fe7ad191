/**
 * `dm_scratch`: regions of one run are apart and aligned, the next run begins anew, and threads do
 * not share.
 */
#include "fake_host.h"

enum { REGIONS = 5 };
static const size_t sizes[REGIONS] = {1, 63, 64 * 1024, 0, 3 * 64 * 1024};

static bool use_scratch(const void *state, DmContext *context) {
  (void)state;
  char *regions[REGIONS];
  for (size_t i = 0; i < REGIONS; i++) {
    regions[i] = dm_scratch(context, sizes[i]);
    if (regions[i] == NULL) return false;
    CHECK((uintptr_t)regions[i] % 64 == 0);
    memset(regions[i], (int)i, sizes[i]);
  }
  for (size_t i = 0; i < REGIONS; i++) {
    for (size_t k = 0; k < sizes[i]; k++) CHECK(regions[i][k] == (char)i);
  }
  return true;
}

static bool ask_for_too_much(const void *state, DmContext *context) {
  (void)state;
  return dm_scratch(context, SIZE_MAX - 1) != NULL;
}

static bool fail_silently(const void *state, DmContext *context) {
  (void)state, (void)context;
  return false;
}

static const DmOp user = {.name = "User", .compute = use_scratch};
static const DmOp greedy = {.name = "Greedy", .compute = ask_for_too_much};
static const DmOp silent = {.name = "Silent", .compute = fail_silently};

static void *run_often(void *data) {
  (void)data;
  for (int i = 0; i < 50; i++) {
    DmContext context = {.host = &fake_host};
    CHECK(dm_run(&user, NULL, &context));
  }
  return NULL;
}

int main(void) {
  pthread_t threads[FAKE_THREADS];
  for (int i = 0; i < FAKE_THREADS; i++) CHECK(pthread_create(&threads[i], NULL, run_often, NULL) == 0);
  for (int i = 0; i < FAKE_THREADS; i++) pthread_join(threads[i], NULL);

  FakeNode node = {0};
  CHECK(strstr(fake_run(&node, &greedy), "no memory for") != NULL);
  CHECK(fake_run(&node, &user) == NULL);
  CHECK(strstr(fake_run(&node, &silent), "Silent failed") != NULL);
  return 0;
}
