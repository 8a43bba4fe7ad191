/**
 * The names of the compiled graph's inputs and outputs, in one order for both runners. See
 * `Manifest` for their meaning.
 */
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";

const FIXED_INPUTS = ["input_ids", "logit_rows", "temperature"] as const;
/** After them, in the graph of an artifact that takes lengths, but not in its single-step graph. */
const LENGTHS_INPUT = "lengths";
/** The rarely wanted first: a run fetches those from `firstOutput` on. */
export const FIXED_OUTPUTS = [
  "hidden",
  "logits",
  "top_logits",
  "top_ids",
  "log_sum_exp",
  "tempered_log_sum_exp",
] as const;

/** The first of a run's outputs to fetch. */
export function firstOutput({
  numRows,
  wantsHidden,
}: {
  readonly numRows: number;
  readonly wantsHidden: boolean;
}): number {
  if (numRows === 0) return FIXED_OUTPUTS.length;
  return wantsHidden ? 0 : 1;
}

/** What the names depend on; `steps` is the graph's: `any` number, or `one`. */
type Contract = Pick<Manifest, "state" | "ragged">;
export type GraphSteps = "any" | "one";

/** The fixed names first, then one per state tensor in the order of the state spec. */
export function graphNames(
  { state, ragged = false }: Contract,
  steps: GraphSteps,
): { inputs: string[]; outputs: string[] } {
  const lengths = ragged && steps === "any" ? [LENGTHS_INPUT] : [];
  return {
    inputs: [...FIXED_INPUTS, ...lengths, ...state.map(({ name }) => `past_${name}`)],
    outputs: [...FIXED_OUTPUTS, ...state.map(({ name }) => `present_${name}`)],
  };
}

/** @throws `invalid_artifact` if the graph's names are not exactly the manifest's */
export function checkGraphNames(
  contract: Contract,
  steps: GraphSteps,
  actual: { inputs: readonly string[]; outputs: readonly string[] },
): void {
  const expected = graphNames(contract, steps);
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
