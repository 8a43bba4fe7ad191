/**
 * The instruction sets that every operator is compiled for, the best last, unless the compiler is
 * told of fewer; and whether this CPU has them. The compile flags of each are in
 * src/runtime/native/kernel-build.ts.
 */
#ifndef DENSEMAMBA_ISA_H
#define DENSEMAMBA_ISA_H

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#ifndef DM_ISAS
#define DM_ISAS(X) X(baseline) X(avx2) X(avx512) X(amx)
#endif

static inline int dm_supports_baseline(void) {
  return 1;
}

static inline int dm_supports_avx2(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); /* every CPU with both has F16C */
}

static inline int dm_supports_avx512(void) {
  return dm_supports_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}

/** Tiles are state that a process has to ask the system for, before its threads may touch them. */
static inline int dm_supports_amx(void) {
#if defined(__linux__)
  enum { FEATURES_LEAF = 7, TILE = 1 << 24, INT8 = 1 << 25, ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  unsigned a, b, c, d = 0;
  return dm_supports_avx512() && __get_cpuid_count(FEATURES_LEAF, 0, &a, &b, &c, &d) && (d & TILE) && (d & INT8) &&
         syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return 0;
#endif
}
#else
/* On arm64 the baseline has NEON. */
#ifndef DM_ISAS
#define DM_ISAS(X) X(baseline)
#endif

static inline int dm_supports_baseline(void) {
  return 1;
}
#endif

#endif
