/** Sequences whose tokens a grammar chooses from, or forces, at once or late. */
import { setImmediate as turn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import type { SequenceRequest } from "../../src/engine/sequence.ts";
import type { NextTokens, TokenMatcher } from "../../src/sampling/token-matcher.ts";
import { gather, request, startEngine, stateAfter, tokensAlone } from "../helpers/engine-harness.ts";

const VOCAB_SIZE = 29;
const BLOCK = [5, 7, 11, 13, 17, 19];

/**
 * A language of blocks: any one of the tokens 1 to 4, then `BLOCK`, five times over. As a grammar
 * does it, with forced tokens; or each by a mask that allows it alone.
 */
class BlockMatcher implements TokenMatcher {
  readonly #forces: boolean;
  readonly #lateness: (place: number) => number;
  #place = 0;
  #turnsLeft = 0;
  #callback: (() => void) | undefined;
  numWaits = 0;
  isClosed = false;

  constructor(forces: boolean, lateness: (place: number) => number = () => 0) {
    this.#forces = forces;
    this.#lateness = lateness;
    this.#settle();
  }

  get next(): NextTokens | undefined {
    if (this.#turnsLeft > 0) return undefined;
    const inBlock = this.#place % (BLOCK.length + 1);
    if (this.#place === 5 * (BLOCK.length + 1)) return { type: "end" };
    if (inBlock > 0 && this.#forces) return { type: "forced", tokenIds: BLOCK.slice(inBlock - 1) };
    const allowed = inBlock > 0 ? [BLOCK[inBlock - 1]!] : [1, 2, 3, 4];
    return { type: "allowed", mask: Int32Array.of(allowed.reduce((bits, id) => bits | (1 << id), 0)) };
  }

  waitBriefly(): void {
    this.numWaits++;
  }

  onceKnown(callback: () => void): void {
    this.#callback = callback;
  }

  accept(tokenId: number): void {
    const next = this.next as Extract<NextTokens, { type: "allowed" }>;
    expect((next.mask[0]! >>> tokenId) & 1).toBe(1);
    this.#place++;
    this.#settle();
  }

  acceptForced(): void {
    this.#place += (this.next as Extract<NextTokens, { type: "forced" }>).tokenIds.length;
    this.#settle();
  }

  close(): void {
    this.isClosed = true;
  }

  #settle(): void {
    this.#turnsLeft = this.#lateness(this.#place);
    if (this.#turnsLeft > 0) void this.#ripen();
  }

  async #ripen(): Promise<void> {
    while (this.#turnsLeft > 0) {
      await turn();
      this.#turnsLeft--;
    }
    this.#callback?.();
    this.#callback = undefined;
  }
}

const SAMPLED = { temperature: 1.3, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1.1, presencePenalty: 0.2 };
const base = (given: Partial<SequenceRequest> = {}) =>
  request({
    promptIds: [1, 2, 3],
    maxTokens: 100,
    vocabSize: VOCAB_SIZE,
    capture: { end: true },
    sampling: { ...request({ promptIds: [1] }).sampling, ...SAMPLED, seed: 4 },
    ...given,
  });

async function run(given: SequenceRequest, ragged = true) {
  const harness = await startEngine({ maxBatch: 3, ragged });
  const [sequence] = harness.engine.submit([given]);
  const gathered = await gather(sequence!);
  harness.engine.checkIntegrity();
  expect(harness.runners[0]!.breaches).toEqual([]);
  await harness.engine.close({ deadlineMs: 0 });
  return {
    ...gathered,
    numSteps: harness.steps.length,
    numDecoded: harness.steps.reduce((sum, step) => sum + step.numDecodeTokens, 0),
  };
}

describe.each([true, false])("with lengths that may differ: %s", (ragged) => {
  it.each([{}, { numLogprobs: 3 }])(
    "forced tokens are the same as those of masks that leave one (%j)",
    async (fields) => {
      const masked = await run(base({ ...fields, matcher: new BlockMatcher(false) }), ragged);
      const forced = await run(base({ ...fields, matcher: new BlockMatcher(true) }), ragged);
      expect(masked.error).toBeUndefined();
      expect(masked.tokenIds).toHaveLength(35);
      expect(forced.tokenIds).toEqual(masked.tokenIds);
      expect(forced.reason).toBe("stop");
      const scores = ({ events }: typeof forced) =>
        events.flatMap((event) => (event.type === "token" ? [event.scored] : []));
      expect(scores(forced)).toEqual(scores(masked));
      // The random numbers are used up alike: whoever goes on gets the same.
      expect(forced.captured!.sampler).toEqual(masked.captured!.sampler);
      if (ragged) expect(forced.numSteps).toBeLessThan(masked.numSteps / 3);
    },
  );

  it("the state has read what the record says, wherever max_tokens cuts", async () => {
    const whole = await run(base({ matcher: new BlockMatcher(false) }), ragged);
    for (const fields of [{}, { numLogprobs: 0 }]) {
      for (const maxTokens of [1, 2, 5, 7, 8, 12]) {
        const { tokenIds, captured, reason } = await run(
          base({ ...fields, maxTokens, matcher: new BlockMatcher(true) }),
          ragged,
        );
        expect(reason).toBe("length");
        expect(tokenIds).toEqual(whole.tokenIds.slice(0, maxTokens));
        const { position, state } = captured!;
        expect(captured!.tokenIds).toEqual([1, 2, 3, ...tokenIds]);
        expect(state).toEqual(new Uint8Array(stateAfter(captured!.tokenIds.slice(0, position)).slice().buffer));
      }
    }
  });

  it("a stop token among forced ones ends the sequence", async () => {
    const stopTokenIds = new Set([13]);
    for (const fields of [{}, { numLogprobs: 1 }]) {
      const { tokenIds, captured, reason } = await run(
        base({ ...fields, stopTokenIds, matcher: new BlockMatcher(true) }),
        ragged,
      );
      expect(reason).toBe("stop");
      expect(tokenIds.slice(1)).toEqual([5, 7, 11, 13]);
      expect(captured!.tokenIds).toEqual([1, 2, 3, ...tokenIds.slice(0, -1)]);
      const { position, state } = captured!;
      expect(state).toEqual(new Uint8Array(stateAfter(captured!.tokenIds.slice(0, position)).slice().buffer));
    }
  });

  it("a late mask suspends its own sequence only, and changes nothing", async () => {
    const onTime = await run(base({ matcher: new BlockMatcher(true) }), ragged);
    const harness = await startEngine({ maxBatch: 2, ragged });
    const matcher = new BlockMatcher(true, (place) => (place % 7 === 0 ? 25 : 0));
    const free = request({ promptIds: [9], maxTokens: 60 });
    let wasSuspended = false;
    const sequences = harness.engine.submit([base({ matcher }), free]);
    const watch = () => {
      wasSuspended ||= harness.engine.load.numSuspended > 0;
    };
    const [late, beside] = await Promise.all([gather(sequences[0]!, watch), gather(sequences[1]!, watch)]);
    expect(late.tokenIds).toEqual(onTime.tokenIds);
    expect(late.captured).toEqual(onTime.captured);
    expect(beside.tokenIds).toEqual(tokensAlone(free));
    expect(wasSuspended).toBe(true);
    expect(matcher.numWaits).toBeGreaterThan(0);
    expect(matcher.isClosed).toBe(true);
    harness.engine.checkIntegrity();
    expect(harness.runners[0]!.breaches).toEqual([]);
  });
});

it("an interrupted sequence has read what its record says", async () => {
  for (const fields of [{}, { numLogprobs: 0 }]) {
    const harness = await startEngine({ maxBatch: 1, ragged: true });
    const matcher = new BlockMatcher(true);
    const [sequence] = harness.engine.submit([base({ ...fields, matcher })]);
    let numTokens = 0;
    const { captured, reason, tokenIds } = await gather(sequence!, (event) => {
      if (event.type === "token" && ++numTokens === 9) harness.engine.interrupt();
    });
    expect(reason).toBe("interrupted");
    expect(captured!.tokenIds).toEqual([1, 2, 3, ...tokenIds]);
    const { position, state } = captured!;
    expect(state).toEqual(new Uint8Array(stateAfter(captured!.tokenIds.slice(0, position)).slice().buffer));
    expect(matcher.isClosed).toBe(true);
  }
});

it("what the grammar cannot do fails its sequence", async () => {
  const matcher = new BlockMatcher(true);
  Object.defineProperty(matcher, "next", { get: () => ({ type: "failed", error: new Error("no way on") }) });
  const { error } = await run(base({ matcher }));
  expect(error).toEqual(new Error("no way on"));
});

it("a sequence that ends while its mask is late frees everything", async () => {
  const harness = await startEngine({ maxBatch: 1, ragged: true });
  const abort = new AbortController();
  const matcher = new BlockMatcher(true, () => 1e9);
  const [sequence] = harness.engine.submit([base({ matcher, signal: abort.signal })]);
  const gathered = gather(sequence!);
  for (let i = 0; i < 50; i++) await turn();
  expect(harness.engine.load).toMatchObject({ numSuspended: 1, slotsInUse: 0 });
  abort.abort();
  expect((await gathered).reason).toBe("aborted");
  expect(matcher.isClosed).toBe(true);
  harness.engine.checkIntegrity();
});
