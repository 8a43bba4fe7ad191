/** What every suite of `densemamba bench` is given. */
import type { ReadBandwidth } from "./bandwidth.ts";
import type { Rig, ShapeName } from "./rig.ts";

export interface BenchContext extends Rig {
  /** Checkpoint folder of the model that all suites run but those of random weights. */
  readonly modelDir: string;
  /** Random weights of this shape for the `shape` suite, and for a part of `state`. */
  readonly shape: ShapeName;
  /** The memory's, bytes per second, the best at the run's start. */
  readonly bandwidth: number;
  /** To measure it again, in turns with what it bounds: it drifts. */
  readonly memory: ReadBandwidth;
  /** Tokens of the `session` suite. */
  readonly sessionTokens: number;
  /** Of the `soak` suite. */
  readonly soakMinutes: number;
  /** What a suite that takes long tells on the way. */
  readonly print: (line: string) => void;
}
