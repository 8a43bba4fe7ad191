/** A subscription to the events of a response that has ended. */
import { setImmediate as tick } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { DenseMambaError } from "../../src/errors.ts";
import type { Sink } from "../../src/server/http/stream-writer.ts";
import { storedSubscription, streamEvents } from "../../src/server/responses/subscription.ts";
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

/** Never full. */
const open: Sink = { flush: () => {}, isFull: false, drained: async () => {} };

describe("a long replay", () => {
  it("is complete and in order, and lets other work run", async () => {
    const transcript = longTranscript(5000);
    const numbers: number[] = [];
    let numTurns = 0;
    let isOver = false;
    const others = (async () => {
      for (; !isOver; numTurns++) await tick();
    })();
    await streamEvents(storedSubscription(transcript), 3, (_event, number) => numbers.push(number), open);
    isOver = true;
    await others;
    expect(numbers).toEqual(Array.from({ length: transcript.numEvents - 3 }, (_, index) => index + 3));
    expect(numTurns).toBeGreaterThan(10);
  });

  it("waits while the client is full, and stops once the subscription is closed", async () => {
    const subscription = storedSubscription(longTranscript(5000));
    let numSent = 0;
    let numWaits = 0;
    const sink: Sink = {
      flush: () => {},
      isFull: true,
      async drained() {
        await tick();
        expect(subscription.isBehind).toBe(true);
        if (++numWaits === 3) subscription.close();
      },
    };
    await streamEvents(subscription, 0, () => numSent++, sink);
    expect(numWaits).toBe(3);
    expect(numSent).toBeLessThan(5000);
  });

  it("closes and throws when the transport gives up", async () => {
    const subscription = storedSubscription(longTranscript(10));
    const stalled = new DenseMambaError("aborted", "the client read nothing for 5 ms");
    const sink: Sink = { flush: () => {}, isFull: true, drained: () => Promise.reject(stalled) };
    await expect(streamEvents(subscription, 0, () => {}, sink)).rejects.toBe(stalled);
    expect(subscription.numEvents).toBe(0);
  });
});
