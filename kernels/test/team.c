/** A team: every index of every job once, whoever comes, and a leader alone does all. */
#include "../team.h"

#include "fake_host.h"

enum { MEMBERS = 4, JOBS = 2000, MOST_TASKS = 97 };

typedef struct {
  Team team;
  atomic_uint times[MOST_TASKS];
  atomic_int numInside;
} Shared;

static void count_task(void *user, size_t index) {
  Shared *shared = user;
  CHECK(index < MOST_TASKS);
  atomic_fetch_add(&shared->times[index], 1);
}

static void lead(void *user) {
  Shared *shared = user;
  CHECK(atomic_fetch_add(&shared->numInside, 1) == 0); /* one leader */
  for (size_t job = 0; job < JOBS; job++) {
    const size_t total = job % (MOST_TASKS + 1);
    team_run(&shared->team, count_task, total, shared);
    for (size_t i = 0; i < MOST_TASKS; i++) CHECK(atomic_exchange(&shared->times[i], 0) == (i < total));
  }
}

static void *join_in(void *user) {
  team_join(&((Shared *)user)->team, lead, user);
  return NULL;
}

static void check(int numMembers) {
  static Shared shared;
  pthread_t threads[MEMBERS];
  memset(&shared, 0, sizeof shared);
  for (int i = 0; i < numMembers; i++) CHECK(pthread_create(&threads[i], NULL, join_in, &shared) == 0);
  for (int i = 0; i < numMembers; i++) pthread_join(threads[i], NULL);
  join_in(&shared); /* too late: it is over */
  CHECK(atomic_load(&shared.numInside) == 1);
}

int main(void) {
  for (int members = 1; members <= MEMBERS; members++) check(members);
  return 0;
}
