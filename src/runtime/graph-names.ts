/**
 * The names of the compiled graph's inputs and outputs, in one order for both runners. See `Manifest` for their meaning.
 */
import { DenseMambaError } from "../errors.ts";
import type { StateSpec } from "../model/state.ts";

export const FIXED_INPUTS = ["input_ids", "logit_rows", "temperature"] as const;
export const FIXED_OUTPUTS = ["logits", "top_logits", "top_ids", "log_sum_exp", "tempered_log_sum_exp"] as const;

/** The fixed names first, then one per state tensor in the order of the state spec. */
export function graphNames(spec: StateSpec): { inputs: string[]; outputs: string[] } {
  return {
    inputs: [...FIXED_INPUTS, ...spec.map(({ name }) => `past_${name}`)],
    outputs: [...FIXED_OUTPUTS, ...spec.map(({ name }) => `present_${name}`)],
  };
}

/** @throws `invalid_artifact` if the graph's names are not exactly those that the manifest promises. */
export function checkGraphNames(
  spec: StateSpec,
  actual: { inputs: readonly string[]; outputs: readonly string[] },
): void {
  const expected = graphNames(spec);
  for (const side of ["inputs", "outputs"] as const) {
    const missing = expected[side].filter((name) => !actual[side].includes(name));
    const extra = actual[side].filter((name) => !expected[side].includes(name));
    if (missing.length === 0 && extra.length === 0) continue;
    throw new DenseMambaError(
      "invalid_artifact",
      `the graph's ${side} are not the manifest's: missing ${missing.join(", ") || "none"}; unexpected ${extra.join(", ") || "none"}`,
    );
  }
}
