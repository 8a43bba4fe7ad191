/**
 * The messages between the portable runner and its worker: one request, one reply, in turn. Plain
 * data, for the structured clone.
 */
import { DenseMambaError, type ErrorCode } from "../../errors.ts";
import type { Manifest } from "../../model/artifact.ts";
import type { HostResults } from "../run-output.ts";

/** The worker's `workerData`. It answers with a `ready` reply, or an error and its end. */
export interface WorkerSettings {
  readonly manifest: Manifest;
  readonly modelPath: string;
  readonly decodeModelPath: string | undefined;
  readonly numSlots: number;
  readonly numThreads: number;
}

/** `RunInput` as tensors; the buffers are transferred. */
export interface RunRequest {
  readonly firstSlot: number;
  readonly numSequences: number;
  readonly numSteps: number;
  /** Of outputs to fetch: `logitRows.length`, or 0 if the caller needs none. */
  readonly numRows: number;
  readonly wantsHidden: boolean;
  readonly tokenIds: BigInt64Array<ArrayBuffer>;
  readonly logitRows: BigInt64Array<ArrayBuffer>;
  readonly temperatures: Float32Array<ArrayBuffer>;
}

/** Request → result. */
export interface Calls {
  run: { request: RunRequest; result: HostResults };
  clearSlot: { request: { slot: number }; result: undefined };
  copySlot: { request: { from: number; to: number }; result: undefined };
  swapSlots: { request: { a: number; b: number }; result: undefined };
  readSlot: { request: { slot: number }; result: Uint8Array };
  writeSlot: { request: { slot: number; state: Uint8Array }; result: undefined };
  /** The worker ends after its reply. */
  close: { request: Record<never, never>; result: undefined };
}

export type CallKind = keyof Calls;

/** `die`: end at once, without a reply, see `PortableRunner.killWorker`. */
export type WorkerRequest = { [Kind in CallKind]: { kind: Kind } & Calls[Kind]["request"] }[CallKind] | { kind: "die" };

export type WorkerReply =
  | { readonly ok: true; readonly result: Calls[CallKind]["result"] }
  | { readonly ok: false; readonly code: ErrorCode | "assertion"; readonly message: string };

export type WorkerGreeting = { readonly ok: true; readonly version: string } | Extract<WorkerReply, { ok: false }>;

/** An assertion crosses as one; whatever else is not a `DenseMambaError` takes `code`. */
export function toFailure(error: unknown, code: ErrorCode): Extract<WorkerReply, { ok: false }> {
  if (error instanceof DenseMambaError) return { ok: false, code: error.code, message: error.message };
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof Error && error.name === "AssertionError") return { ok: false, code: "assertion", message };
  return { ok: false, code, message: `ONNX Runtime: ${message}` };
}
