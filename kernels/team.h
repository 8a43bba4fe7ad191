/**
 * Threads that stay together through many short pieces of work: one leads, and hands out tasks; the
 * others take what there is. Nobody waits for a thread that has not come: a leader alone does
 * everything.
 */
#ifndef DENSEMAMBA_TEAM_H
#define DENSEMAMBA_TEAM_H

#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
  void (*_Atomic fn)(void *user, size_t index);
  void *_Atomic user;
  _Atomic size_t total;
} TeamJob;

/** All zero: nobody has come. */
typedef struct {
  atomic_bool hasLeader, isOver;
  _Atomic size_t numMembers;
  /** Number of the job, and below it, in 32 bits, how many of its tasks nobody has taken yet. */
  _Alignas(64) _Atomic uint64_t untaken;
  TeamJob jobs[2]; /* by the number's last bit: the one before may still be looked at, though no task of it be taken */
  _Alignas(64) _Atomic size_t numDone;
} Team;

/**
 * A thread takes so much less than its part of what is left: the slower ones then end together with
 * the others.
 */
enum { TEAM_SHARES = 2 };
/** A thread that finds nothing to do looks again so often before it offers its core to others. */
enum { TEAM_PATIENCE = 1 << 12 };

static inline void team_pause(unsigned *waited) {
  if (++*waited % TEAM_PATIENCE == 0) sched_yield();
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/**
 * Takes some tasks of the current job, neighbours, and does them: its share of what is untaken, so
 * that what it reads from memory is one stream, and the last are few. @returns false if there were
 * none to take.
 */
static inline bool team_take(Team *team) {
  uint64_t untaken = atomic_load_explicit(&team->untaken, memory_order_acquire);
  while ((uint32_t)untaken != 0) {
    const TeamJob *job = &team->jobs[untaken >> 32 & 1];
    void (*fn)(void *, size_t) = atomic_load_explicit(&job->fn, memory_order_relaxed);
    void *user = atomic_load_explicit(&job->user, memory_order_relaxed);
    const size_t total = atomic_load_explicit(&job->total, memory_order_relaxed);
    const size_t left = (uint32_t)untaken, members = atomic_load_explicit(&team->numMembers, memory_order_relaxed);
    const size_t share = (left + TEAM_SHARES * members - 1) / (TEAM_SHARES * members);
    /* Success says that the job is still the one that was read. */
    if (!atomic_compare_exchange_weak_explicit(&team->untaken, &untaken, untaken - share, memory_order_acq_rel, memory_order_acquire)) {
      continue;
    }
    for (size_t i = total - left; i < total - left + share; i++) fn(user, i);
    atomic_fetch_add_explicit(&team->numDone, share, memory_order_release);
    return true;
  }
  return false;
}

/**
 * The leader's: calls `fn(user, index)` for every index below `total`, at most 2^32 - 1, and
 * returns when all have.
 */
static inline void team_run(Team *team, void (*fn)(void *user, size_t index), size_t total, void *user) {
  const uint64_t number = (atomic_load_explicit(&team->untaken, memory_order_relaxed) >> 32) + 1;
  TeamJob *job = &team->jobs[number & 1];
  unsigned waited = 0;
  atomic_store_explicit(&job->fn, fn, memory_order_relaxed);
  atomic_store_explicit(&job->user, user, memory_order_relaxed);
  atomic_store_explicit(&job->total, total, memory_order_relaxed);
  atomic_store_explicit(&team->numDone, 0, memory_order_relaxed);
  atomic_store_explicit(&team->untaken, number << 32 | total, memory_order_release);
  while (team_take(team)) continue;
  while (atomic_load_explicit(&team->numDone, memory_order_acquire) != total) team_pause(&waited);
}

/**
 * Every member's, once each: the first becomes the leader, who calls `lead(user)`, in which
 * `team_run` may be called; the others help until that has returned.
 */
static inline void team_join(Team *team, void (*lead)(void *user), void *user) {
  unsigned waited = 0;
  if (atomic_load_explicit(&team->isOver, memory_order_acquire)) return;
  atomic_fetch_add_explicit(&team->numMembers, 1, memory_order_relaxed);
  if (!atomic_exchange_explicit(&team->hasLeader, true, memory_order_acq_rel)) {
    lead(user);
    atomic_store_explicit(&team->isOver, true, memory_order_release);
    return;
  }
  while (!atomic_load_explicit(&team->isOver, memory_order_acquire)) {
    if (!team_take(team)) team_pause(&waited);
  }
}

#endif
