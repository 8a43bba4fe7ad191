/**
 * ONNX Runtime's session configuration entries, the same for both runners. docs/runtime.md has the measurements.
 */
export const SESSION_CONFIG: Readonly<Record<string, string>> = {
  // Threads wait for the next operator awake, but no longer than the gaps within a step: spinning without end is no
  // faster alone and several times slower beside others on the same cores.
  "session.intra_op.allow_spinning": "1",
  "session.intra_op.spin_duration_us": "100",
  // And not at all between runs, when the cores are the event loop's.
  "session.force_spinning_stop": "1",
};
