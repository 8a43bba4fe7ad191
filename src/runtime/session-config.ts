/**
 * ONNX Runtime's session configuration entries, the same for both runners. docs/runtime.md has the
 * measurements.
 */
export const SESSION_CONFIG: Readonly<Record<string, string>> = {
  // Threads wait for the next operator awake, but no longer than the gaps within a step, and
  // between short steps: spinning without end is no faster alone and several times slower beside
  // others on the same cores.
  "session.intra_op.allow_spinning": "1",
  "session.intra_op.spin_duration_us": "100",
};
