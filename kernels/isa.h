/**
 * The instruction sets that every operator is compiled for, the best last, unless the compiler is told of fewer; and whether
 * this CPU has them. The compile flags of each are in src/runtime/native/kernel-build.ts.
 */
#ifndef DENSEMAMBA_ISA_H
#define DENSEMAMBA_ISA_H

#if defined(__x86_64__)
#ifndef DM_ISAS
#define DM_ISAS(X) X(baseline) X(avx2) X(avx512)
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
