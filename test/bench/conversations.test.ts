/** How conversations are timed without HTTP. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { dropFromCache, runTurn, session, turnOf } from "../../src/bench/conversations.ts";
import { measureRate } from "../../src/bench/suites/state-sessions.ts";
import type { GenerationEvent } from "../../src/generation/events.ts";

describe("a turn", () => {
  const events: GenerationEvent[] = [
    { type: "accepted", prompts: [] },
    { type: "delta", index: 0, text: "a", tokenIds: [1] },
    { type: "delta", index: 0, text: "bc", tokenIds: [2, 3] },
    { type: "finished", index: 0, reason: "length" },
    { type: "usage", usage: { promptTokens: 9, cachedTokens: 8, completionTokens: 3, stateBytes: 1 } },
  ];
  const generator = {
    async *generate() {
      yield* events;
    },
  };

  it("counts its tokens, and those that were not read again", async () => {
    let numTokens = 0;
    const request = turnOf({ type: "tokens", tokenIds: [1] }, { maxTokens: 3, resumeFrom: session("s") });
    const turn = await runTurn(generator, request, () => numTokens++);
    expect(numTokens).toBe(3);
    expect(turn).toMatchObject({ cachedTokens: 8, text: "abc" });
    expect(turn.firstTokenMs).toBeGreaterThanOrEqual(0);
  });

  it("is the same work each time: greedy, to its full length", () => {
    const request = turnOf({ type: "tokens", tokenIds: [] }, { maxTokens: 5, saveAs: session("s") });
    expect(request).toMatchObject({ ignoreEos: true, maxTokens: 5, saveAs: { type: "session", id: "s" } });
    expect(request.sampling.temperature).toBe(0);
  });
});

describe("a rate", () => {
  it("is taken of a load that is told when to end", async () => {
    let numTokens = 0;
    const rate = await measureRate(async (onToken, isOver) => {
      while (!isOver.aborted) {
        await new Promise((resolve) => setImmediate(resolve));
        onToken();
        numTokens++;
      }
    }, 50);
    expect(numTokens).toBe(55); // a tenth before it counts
    expect(rate).toBeGreaterThan(0);
  });
});

describe("a file out of the cache", () => {
  it("is still the same file", async () => {
    const dir = await mkdtemp(path.join(tmpdir(), "uncached-"));
    try {
      const file = path.join(dir, "state");
      await writeFile(file, "kept");
      dropFromCache(file);
      expect(await readFile(file, "utf8")).toBe("kept");
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});
