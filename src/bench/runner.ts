/** Forward passes alone, without the engine: what the hardware and the graph allow. */
import { performance } from "node:perf_hooks";
import type { Manifest } from "../model/artifact.ts";
import { stateBytes } from "../model/state.ts";
import type { ModelRunner, RunInput } from "../runtime/runner.ts";
import type { SuiteContext } from "./config.ts";
import { median } from "./figures.ts";
import { inTurns, ratios } from "./rounds.ts";

const NUM_WARM_UPS = 3;

export interface DecodeOptions {
  readonly numSequences: number;
  readonly numSteps: number;
  readonly firstSlot?: number;
}

/** Median milliseconds of a decode step, after a few that warm up. */
export async function measureDecode(
  runner: ModelRunner,
  { numSequences, numSteps, firstSlot = 0 }: DecodeOptions,
): Promise<number> {
  const input = { ...decodeInput(numSequences), firstSlot };
  for (let i = 0; i < NUM_WARM_UPS; i++) await runner.run(input);
  const stepMs: number[] = [];
  for (let i = 0; i < numSteps; i++) {
    const startMs = performance.now();
    await runner.run(input);
    stepMs.push(performance.now() - startMs);
  }
  return median(stepMs);
}

/** Milliseconds of reading one prompt in chunks. */
export async function measurePrefill(runner: ModelRunner, numTokens: number, chunk: number): Promise<number> {
  await runner.clearSlot(0);
  const startMs = performance.now();
  await readPrompt(runner, numTokens, chunk);
  return performance.now() - startMs;
}

/** Slot 0 reads that many more tokens, `chunk` per run, with logits for the last one only. */
export async function readPrompt(runner: ModelRunner, numTokens: number, chunk: number): Promise<void> {
  for (let done = 0; done < numTokens; done += chunk) {
    const numSteps = Math.min(chunk, numTokens - done);
    const isLast = done + numSteps === numTokens;
    await runner.run({
      firstSlot: 0,
      lengths: [numSteps],
      tokenIds: Array.from({ length: numSteps }, (_, i) => 3 + ((i + done) % 250)),
      logitRows: isLast ? [numSteps - 1] : [],
      temperatures: isLast ? [1] : [],
    });
  }
}

/** One token for each sequence. */
export function decodeInput(numSequences: number): RunInput {
  return {
    firstSlot: 0,
    lengths: new Array<number>(numSequences).fill(1),
    tokenIds: Array.from({ length: numSequences }, (_, i) => 3 + ((i * 7) % 250)),
    logitRows: Array.from({ length: numSequences }, (_, i) => i),
    temperatures: new Array<number>(numSequences).fill(1),
  };
}

/**
 * A decode step of one sequence reads every weight and the state once. The largest file holds the
 * weights; where the embedding is tied to the head, that reads all of it.
 */
export function bytesReadByStep({ files, state }: Pick<Manifest, "files" | "state">): number {
  return Math.max(...files.map((file) => file.bytes)) + stateBytes(state);
}

/**
 * A decode step of one sequence beside the time in which memory delivers as many bytes. `share` is
 * in percent; `numUnread`, bytes of the weights that a step leaves.
 */
export async function measureShare(
  { memory }: Pick<SuiteContext, "memory">,
  runner: ModelRunner,
  manifest: Manifest,
  { firstSlot = 0, numUnread = 0 } = {},
): Promise<{ readonly stepMs: number; readonly floorMs: number; readonly share: number }> {
  const numBytes = bytesReadByStep(manifest) - numUnread;
  const { floor, step } = await inTurns(
    {
      floor: async () => (numBytes / (await memory.measure(numBytes))) * 1000,
      step: () => measureDecode(runner, { numSequences: 1, numSteps: 20, firstSlot }),
    },
    { numRounds: 7, numWarmUps: 0 },
  );
  return { stepMs: median(step), floorMs: median(floor), share: median(ratios(floor, step)) * 100 };
}
