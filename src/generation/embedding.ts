/** One vector for each prompt: it is read, and the model's hidden states are pooled. */
import type { Pooling } from "../engine/pooled-states.ts";
import type { Sequence } from "../engine/sequence.ts";
import { DenseMambaError } from "../errors.ts";
import { GREEDY } from "../sampling/params.ts";
import type { SequenceEngine } from "./admission.ts";
import type { PreparedPrompt } from "./prompts.ts";

/**
 * As many prompts at a time as there are slots, so that any number of them fits into the queue.
 * @returns [D] for each
 * @throws as the engine does; `aborted`
 */
export async function embedPrompts(
  engine: SequenceEngine,
  prompts: readonly PreparedPrompt[],
  pooling: Pooling,
  signal: AbortSignal,
): Promise<Float32Array[]> {
  const vectors: Float32Array[] = [];
  const numAtOnce = engine.load?.maxBatch ?? 1;
  for (let start = 0; start < prompts.length; start += numAtOnce) {
    const sequences = engine.submit(
      prompts.slice(start, start + numAtOnce).map(({ promptIds }) => ({
        promptIds,
        pooling,
        sampling: GREEDY,
        maxTokens: 0,
        minTokens: 0,
        stopTokenIds: new Set<number>(),
        signal,
      })),
    );
    vectors.push(...(await Promise.all(sequences.map(pooledOf))));
  }
  return vectors;
}

async function pooledOf(sequence: Sequence): Promise<Float32Array> {
  let pooled: Float32Array | undefined;
  for await (const event of sequence.events) if (event.type === "prompt") pooled = event.pooled;
  if (pooled !== undefined) return pooled;
  throw new DenseMambaError("aborted", "the request was aborted while its prompts were being read");
}
