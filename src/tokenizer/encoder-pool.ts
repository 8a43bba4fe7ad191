/**
 * Encoder processes in a pool. A process that encodes a long text is killed when its client leaves.
 */
import { DenseMambaError } from "../errors.ts";
import type { EncoderProcess } from "./encoder-process.ts";
import { ProcessPool } from "./process-pool.ts";

/** Shorter texts are encoded soon enough. */
const MAX_UNINTERRUPTED_LENGTH = 64 * 1024;

export interface EncoderPoolOptions {
  readonly start: () => Promise<EncoderProcess>;
  readonly first?: EncoderProcess;
  readonly maxProcesses: number;
  /** For one text. */
  readonly timeoutMs: number;
  /** An idle pool ends its processes after this long. */
  readonly idleMs?: number;
}

export class EncoderPool extends ProcessPool<EncoderProcess, string, Int32Array> {
  constructor({ timeoutMs, ...options }: EncoderPoolOptions) {
    super({ ...options, run: (process, text, signal) => encode(process, text, timeoutMs, signal), aborted });
  }

  /** @param signal identifies the request. @throws `aborted`; else as `EncoderProcess` does */
  encode(text: string, signal?: AbortSignal): Promise<Int32Array> {
    return this.submit(text, signal);
  }
}

async function encode(process: EncoderProcess, text: string, timeoutMs: number, signal: AbortSignal | undefined) {
  const stop = () => {
    if (text.length > MAX_UNINTERRUPTED_LENGTH) process.kill(aborted());
  };
  signal?.addEventListener("abort", stop, { once: true });
  try {
    return await process.encode(text, timeoutMs);
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

function aborted(): DenseMambaError {
  return new DenseMambaError("aborted", "the request was aborted before its text was encoded");
}
