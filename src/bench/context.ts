/** What every suite of `densemamba bench` is given. */
import type { Rig, ShapeName } from "./rig.ts";

export interface BenchContext extends Rig {
  /** Checkpoint folder of the model that `streams`, `interference`, `stall` and the sessions run. */
  readonly modelDir: string;
  /** Random weights of this shape for the `shape` suite. */
  readonly shape: ShapeName;
  /** The memory's, bytes per second, measured in this run. */
  readonly bandwidth: number;
  /** Tokens of the `session` suite. */
  readonly sessionTokens: number;
}
