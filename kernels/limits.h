/**
 * What the operators take at most: src/compiler/operators/ has the same numbers, and where a model
 * is beyond one, its graphs have plain ONNX in that operator's place. A test compares them.
 */
#ifndef DENSEMAMBA_LIMITS_H
#define DENSEMAMBA_LIMITS_H

enum {
  /** `CausalConv`. */
  DM_MAX_TAPS = 16,
  /** `SelectiveScan`: linked layers. */
  DM_MAX_LINKS = 8,
  /** `SelectiveScan` on a CPU: twice the state size and the rank, together. */
  DM_MAX_SCAN_ROWS = 4096,
  /** In CUDA the state size of `SelectiveScan`, and of `Recurrence` a head's key. */
  DM_MAX_CUDA_STATE_SIZE = 256,
  /** `Recurrence` on a CPU: of a head's key. */
  DM_MAX_KEY_WIDTH = 4096,
  /** Likewise in CUDA. */
  DM_MAX_CUDA_KEY_WIDTH = 512,
};

#endif
