/**
 * The interface to ONNX Runtime: load an artifact, hold the states of `numSlots` sequences, advance
 * a contiguous range of them in place. Two implementations, `native` and `portable`. Knows neither
 * requests nor sampling.
 */
import type { Manifest } from "../model/artifact.ts";
import type { LogitRows } from "../model/logits.ts";
import type { KernelLibrary } from "./native/kernel-library.ts";

export interface RunnerOptions {
  /** Folder of a verified artifact. */
  readonly artifactDir: string;
  readonly numSlots: number;
  /** Intra-op threads; 0 lets the runtime choose. */
  readonly numThreads: number;
  readonly device: "cpu" | "cuda";
  /** Our own operators, for artifacts that need them: `native` on a CPU. */
  readonly kernels?: KernelLibrary | undefined;
  /** Called with what runs differently than intended, and why. */
  readonly note?: ((message: string) => void) | undefined;
}

/** One forward pass over slots [firstSlot, firstSlot + B). */
export interface RunInput {
  readonly firstSlot: number;
  /**
   * [B]: by how many tokens each slot is advanced. All the same, at least 1, unless
   * `manifest.ragged`: then 0 leaves a slot as it is, but at least one must be advanced.
   */
  readonly lengths: ArrayLike<number>;
  /** The slots' tokens, one slot after another. May be reused once the run has ended. */
  readonly tokenIds: ArrayLike<number>;
  /** Indices into `tokenIds` after which logits are needed, ascending. May be empty. */
  readonly logitRows: ArrayLike<number>;
  /** [logitRows.length], each > 0. */
  readonly temperatures: ArrayLike<number>;
  /**
   * Which rows will be read whole, as indices into `logitRows`, ascending. On a device their logits
   * come with the results; other rows' are fetched on demand. Default: none.
   */
  readonly wholeRows?: ArrayLike<number>;
  /** Whether `hiddenOf` will be read. Default: false. */
  readonly wantsHidden?: boolean;
}

/**
 * R rows in the order of `logitRows`. The arrays belong to the runner and are valid until its next
 * call. `logitsOf` throws `runtime_fault` if a row is on a device and cannot be fetched.
 */
export interface RunOutput extends LogitRows {
  /** [D]: the hidden state of one row, which its logits are made of. Only if the run wants them. */
  readonly hiddenOf: (row: number) => Float32Array;
}

/**
 * Calls must not overlap: await one before the next. Any rejection with code `runtime_fault` means
 * that the runner's states are lost; close it and open another.
 */
export interface ModelRunner {
  readonly manifest: Manifest;
  readonly numSlots: number;
  /**
   * What runs where, for logs and `/ready`: e.g. `native cpu, onnxruntime 1.30.0, 2 threads,
   * kernels avx2, int8 batch-invariant`.
   */
  readonly description: string;
  /** Does not block the event loop. */
  run(input: RunInput): Promise<RunOutput>;
  /** Sets a slot's state to zero: a sequence at position 0. */
  clearSlot(slot: number): Promise<void>;
  /** Copies one slot's state over another's. */
  copySlot(from: number, to: number): Promise<void>;
  swapSlots(a: number, b: number): Promise<void>;
  /**
   * A copy of the slot's state, `stateBytes(manifest.state)` long, tensors in the order of the
   * state spec.
   */
  readSlot(slot: number): Promise<Uint8Array>;
  /** @throws `invalid_snapshot` if the length is not `stateBytes(manifest.state)`. */
  writeSlot(slot: number, state: Uint8Array): Promise<void>;
  /** Frees everything. Waits for a run in flight. Idempotent. */
  close(): Promise<void>;
}
