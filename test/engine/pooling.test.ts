/** One vector for a prompt, however its reading is cut. */
import { afterEach, describe, expect, it } from "vitest";
import {
  gather,
  type Harness,
  type HarnessOptions,
  request,
  startEngine,
  stateAfter,
} from "../helpers/engine-harness.ts";
import { fakeHidden } from "../helpers/fake-runner.ts";

const PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];

let harness: Harness | undefined;
afterEach(async () => {
  await harness?.engine.close({ deadlineMs: 0 });
  expect(harness?.runners.flatMap(({ breaches }) => breaches)).toEqual([]);
  harness = undefined;
});

async function start(options: HarnessOptions = {}): Promise<Harness> {
  harness = await startEngine(options);
  return harness;
}

function states(promptIds: readonly number[]): Float32Array[] {
  return promptIds.map((_, index) => fakeHidden(stateAfter(promptIds.slice(0, index + 1))));
}

function meanOf(vectors: readonly Float32Array[]): number[] {
  return Array.from(vectors[0]!, (_, i) => vectors.reduce((sum, vector) => sum + vector[i]!, 0) / vectors.length);
}

async function pooled(promptIds: readonly number[], pooling: "last" | "mean"): Promise<number[]> {
  const [sequence] = harness!.engine.submit([request({ promptIds, pooling, maxTokens: 0 })]);
  const { events, error, reason } = await gather(sequence!);
  expect(error).toBeUndefined();
  expect(reason).toBe("length");
  const [prompt] = events;
  return Array.from(prompt?.type === "prompt" ? (prompt.pooled ?? []) : []);
}

describe.each([false, true])("where lengths may differ: %s", (ragged) => {
  it.each([1, 3, 4, 100])("the mean is of all tokens, the last of one, in chunks of %s", async (prefillChunk) => {
    await start({ prefillChunk, ragged });
    const expected = states(PROMPT);
    for (const [index, value] of (await pooled(PROMPT, "mean")).entries()) {
      expect(value).toBeCloseTo(meanOf(expected)[index]!, 6);
    }
    expect(await pooled(PROMPT, "last")).toEqual(Array.from(expected.at(-1)!));
    expect(await pooled([7], "mean")).toEqual(Array.from(states([7])[0]!));
  });

  it("is that of each alone among others that decode, score and embed", async () => {
    await start({ prefillChunk: 3, maxBatch: 4, ragged });
    const writing = gather(harness!.engine.submit([request({ promptIds: [8, 8], maxTokens: 30 })])[0]!);
    const scored = request({ promptIds: PROMPT, numPromptLogprobs: 2, maxTokens: 2 });
    const scoring = gather(harness!.engine.submit([scored])[0]!);
    const all = await Promise.all([0, 1, 2, 3, 4].map((id) => pooled([id, ...PROMPT], id % 2 === 0 ? "mean" : "last")));
    for (const [id, vector] of all.entries()) {
      const expected = states([id, ...PROMPT]);
      const wanted = id % 2 === 0 ? meanOf(expected) : Array.from(expected.at(-1)!);
      for (const [i, value] of vector.entries()) expect(value).toBeCloseTo(wanted[i]!, 6);
    }
    expect((await writing).tokenIds).toHaveLength(30);
    expect((await scoring).error).toBeUndefined();
  });

  it("asks for hidden states in those runs alone that need them, and for as few rows", async () => {
    const { runners } = await start({ prefillChunk: 100, ragged });
    await gather(harness!.engine.submit([request({ promptIds: PROMPT, maxTokens: 2 })])[0]!);
    await pooled(PROMPT, "last");
    await pooled(PROMPT, "mean");
    const runs = runners[0]!.calls.flatMap((call) => (call.type === "run" ? [call.input] : []));
    const read = runs.map(({ wantsHidden = false, logitRows, wholeRows }) => [
      wantsHidden,
      logitRows.length,
      wholeRows?.length,
    ]);
    expect(read.filter(([wants]) => wants)).toEqual([
      [true, 1, 0],
      [true, PROMPT.length, 0],
    ]);
  });
});

it("bounds how many tokens of it a run reads, as for log-probabilities", async () => {
  const { runners } = await start({ prefillChunk: 100, claimedVocabSize: 2 ** 21 });
  await pooled(PROMPT, "mean");
  const lengths = runners[0]!.calls.flatMap((call) => (call.type === "run" ? [Array.from(call.input.lengths)] : []));
  expect(lengths.flat().filter((length) => length > 4)).toEqual([]);
});

it("fails by name where the model's numbers are not finite", async () => {
  await start({ poisonToken: 9 });
  const [sequence] = harness!.engine.submit([request({ promptIds: PROMPT, pooling: "mean", maxTokens: 0 })]);
  const { error } = await gather(sequence!);
  expect(error).toMatchObject({ code: "runtime_fault", message: expect.stringContaining("for token 5 of the prompt") });
});
