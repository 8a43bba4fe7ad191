/**
 * Every operator: `X(name)` stands for the `DmOp` that name.c exports as `DM_NAME(name)`.
 */
#define DM_OPS(X)      \
  X(embed_rows)        \
  X(linear)            \
  X(causal_conv)       \
  X(selective_scan)    \
  X(norm)              \
  X(sample_statistics) \
  X(recurrence)        \
  X(token_shift)       \
  X(discretize)        \
  X(delta_rule_inputs) \
  X(delta_rule_output) \
  X(chain)
