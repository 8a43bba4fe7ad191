/** One reader's way through the events of a response that has ended. */
import { setImmediate as tick } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import type { Sink } from "../../src/server/http/pump.ts";
import { follow, keptReading } from "../../src/server/responses/subscription.ts";
import { Transcript } from "../../src/server/responses/transcript.ts";

const HEAD = { id: "resp_1", itemId: "msg_1", createdS: 5, model: "m" };
const SETTINGS = {
  instructions: null,
  previousResponseId: null,
  maxOutputTokens: null,
  temperature: 1,
  topP: 1,
  topLogprobs: 0,
  truncation: "disabled" as const,
  store: true,
  background: false,
  generates: true,
  metadata: {},
  parallelToolCalls: true,
};

function longTranscript(numPieces: number): Transcript {
  const transcript = new Transcript(HEAD, SETTINGS, () => 9);
  transcript.push({ type: "accepted", prompts: [] });
  for (let n = 0; n < numPieces; n++) transcript.push({ type: "delta", index: 0, text: "a", tokenIds: [1] });
  transcript.push({ type: "finished", index: 0, reason: "stop" });
  const usage = { promptTokens: 1, cachedTokens: 0, completionTokens: numPieces, stateBytes: 1 };
  transcript.push({ type: "usage", usage });
  return transcript;
}

/** Takes all it is given. */
const open: Sink = { flush: () => {}, isFull: false, drained: async () => {} };

describe("a long replay", () => {
  it("comes whole and in order, and lets others have their turns", async () => {
    const transcript = longTranscript(5000);
    const numbers: number[] = [];
    let numTurns = 0;
    let isOver = false;
    const others = (async () => {
      for (; !isOver; numTurns++) await tick();
    })();
    await follow(keptReading(transcript), 3, (_event, number) => numbers.push(number), open);
    isOver = true;
    await others;
    expect(numbers).toEqual(Array.from({ length: transcript.numEvents - 3 }, (_, index) => index + 3));
    expect(numTurns).toBeGreaterThan(10);
  });

  it("waits for a reader that is full, and ends where the reader leaves", async () => {
    const reading = keptReading(longTranscript(5000));
    let numSent = 0;
    let numWaits = 0;
    const sink: Sink = {
      flush: () => {},
      isFull: true,
      async drained() {
        await tick();
        expect(reading.isBehind).toBe(true);
        if (++numWaits === 3) reading.leave();
      },
    };
    await follow(reading, 0, () => numSent++, sink);
    expect(numWaits).toBe(3);
    expect(numSent).toBeLessThan(5000);
  });

  it("leaves when the transport gives up, and says why", async () => {
    const reading = keptReading(longTranscript(10));
    const stalled = new DenseMambaError("aborted", "the client read nothing for 5 ms");
    const sink: Sink = { flush: () => {}, isFull: true, drained: () => Promise.reject(stalled) };
    await expect(follow(reading, 0, () => {}, sink)).rejects.toBe(stalled);
    expect(reading.numEvents).toBe(0);
  });
});
