/**
 * An entry of the table of operators: what an operator means, what it may be given, and how it is
 * written in plain ONNX, as our kernel and in CUDA. A family is written once, by calling operators;
 * which of the three is emitted is decided here alone.
 */
import type { LoweringKind } from "../../model/artifact.ts";
import type { Limit, Lowering } from "../lowering.ts";

export type KernelKind = Exclude<LoweringKind, "plain">;

/** @template Result undefined where another emitter has to serve; then nothing has been emitted */
type Emitter<Inputs, Result> = (lowering: Lowering, inputs: Inputs, width: number) => Result;

export interface Operator<Inputs, Result> {
  readonly name: string;
  /** Whether a row's result depends on rows of its sequence before it. */
  readonly looksAlongTime: boolean;
  /**
   * The shape rule: asserts that the operands fit one another. @returns how many columns the result
   * has
   */
  readonly width: (inputs: Inputs) => number;
  readonly limits?: (inputs: Inputs, kind: KernelKind) => readonly Limit[];
  readonly plain: Emitter<Inputs, Result>;
  /** Our kernel on a CPU. Without it, or if it gives undefined, plain ONNX serves. */
  readonly kernels?: Emitter<Inputs, Result | undefined>;
  /** Likewise on CUDA. */
  readonly cuda?: Emitter<Inputs, Result | undefined>;
}

/** The entry as a function that emits it. */
export function operator<Inputs, Result>(
  entry: Operator<Inputs, Result>,
): (lowering: Lowering, inputs: Inputs) => Result {
  return (lowering, inputs) => {
    const width = entry.width(inputs);
    const own = ownResult(entry, lowering, inputs, width);
    return own ?? entry.plain(lowering, inputs, width);
  };
}

function ownResult<Inputs, Result>(
  entry: Operator<Inputs, Result>,
  lowering: Lowering,
  inputs: Inputs,
  width: number,
): Result | undefined {
  const { kind, plainOperators, used } = lowering;
  const { name, looksAlongTime } = entry;
  if (kind === "plain") return undefined;
  const own = plainOperators.has(name) ? undefined : entry[kind]?.(lowering, inputs, width);
  const beyond = entry.limits?.(inputs, kind).find(({ value, most }) => value > most);
  used.push({ name, looksAlongTime, isKernel: own !== undefined, beyond });
  return own;
}
