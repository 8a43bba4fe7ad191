/**
 * Functions of each number by itself, in the order of ACTIVATIONS in
 * src/compiler/operators/activation.ts.
 */
#ifndef DENSEMAMBA_ACTIVATION_H
#define DENSEMAMBA_ACTIVATION_H

#include "simd.h"

typedef enum {
  ACTIVATION_NONE,
  ACTIVATION_SILU,
  ACTIVATION_SIGMOID,
  ACTIVATION_TANH,
  ACTIVATION_RELU2, /* max(x, 0)² */
  ACTIVATION_GELU,  /* x Φ(x), exact: not by tanh */
  NUM_ACTIVATIONS,
} Activation;

/** Those that are rare, so that they stand once. */
static __attribute__((noinline)) vf activated_rarely(Activation activation, vf x) {
  switch (activation) {
    case ACTIVATION_SIGMOID:
      return vf_sigmoid(x);
    case ACTIVATION_TANH:
      return vf_tanh(x);
    case ACTIVATION_RELU2: {
      const vf positive = vf_at_least(x, 0);
      return positive * positive;
    }
    case ACTIVATION_GELU:
      return 0.5f * x * (1.0f + vf_erf(x * 0.70710678118654752f));
    default:
      return x;
  }
}

DM_INLINE vf activated(Activation activation, vf x) {
  if (activation == ACTIVATION_NONE) return x;
  return activation == ACTIVATION_SILU ? vf_silu(x) : activated_rarely(activation, x);
}

#endif
