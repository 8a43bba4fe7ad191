/** What the soak test counts as a violation, and what it must not. */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setImmediate as tick } from "node:timers/promises";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { ScoredToken } from "../../src/sampling/logprobs.ts";
import { gate } from "../helpers/gate.ts";
import { type ColdRun, firstWrong, SoakFixture, type SoakParts } from "./fixture.ts";
import { codeOf, streamTokens, TokenStream } from "./http.ts";
import { afterTurn, type KnownSession, Ledger, reconcile } from "./ledger.ts";
import { sumOf } from "./server.ts";

const ids = fc.array(fc.nat(9), { maxLength: 6 });

describe("what is known of a session", () => {
  const known = afterTurn({ id: "s", tokenIds: [], answers: [] }, [1, 2], [3, 4, 5]);
  const turn = { promptIds: [6, 7], seenIds: [8], maxTokens: 3 };

  it("grows by a turn's prompt and answer, and remembers which tokens the model chose", () => {
    const next = afterTurn(known, [6], [7, 8]);
    expect(next.tokenIds).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(next.answers.map(({ start, end }) => next.tokenIds.slice(start, end))).toEqual([
      [3, 4, 5],
      [7, 8],
    ]);
  });

  it("may have grown by the prompt and any beginning of the answer when a turn was cut off", () => {
    fc.assert(
      fc.property(ids, ids, fc.nat(6), fc.nat(6), (promptIds, answerIds, numSeen, numKept) => {
        const open = { promptIds, seenIds: answerIds.slice(0, numSeen), maxTokens: 6 };
        const kept = [...known.tokenIds, ...promptIds, ...answerIds.slice(0, numKept)];
        expect(reconcile(known, known.tokenIds, open)).toBe(known);
        const found = reconcile(known, kept, open) as KnownSession;
        expect(found.tokenIds).toEqual(kept);
        // Every token behind the acknowledged ones is either the prompt's or is compared with a
        // cold run.
        const chosen = found.answers.slice(1).reduce((sum, { start, end }) => sum + end - start, 0);
        expect(kept.length - known.tokenIds.length - chosen).toBe(found === known ? 0 : promptIds.length);
      }),
    );
  });

  it.each([
    ["less than was acknowledged", [1, 2, 3, 4], "lost"],
    ["another past", [1, 2, 3, 4, 9, 6, 7], "lost"],
    ["another prompt", [1, 2, 3, 4, 5, 7, 6], "nobody sent"],
    ["another answer than was streamed", [1, 2, 3, 4, 5, 6, 7, 9], "another answer"],
    ["a longer answer than was asked for", [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8], "longer"],
  ])("is never %s", (_, kept, what) => {
    expect(reconcile(known, kept, turn)).toContain(what);
  });

  it("does not grow by itself", () => {
    expect(reconcile(known, [...known.tokenIds, 6])).toContain("nobody sent");
  });
});

describe("the end of a stream", () => {
  const token = (id: number, end: string | null = null) =>
    `data: ${JSON.stringify({ choices: [{ token_ids: [id], finish_reason: end }] })}\n\n`;
  const done = "data: [DONE]\n\n";
  const fault = 'data: {"error":{"code":"shutting_down"}}\n\n';
  const endOf = (...pieces: string[]) => {
    const stream = new TokenStream();
    for (const piece of pieces) stream.push(piece);
    return stream.end();
  };

  it("is found wherever the body is cut", () => {
    const body = `${token(1)}: heartbeat\n\n${token(2)}${token(3, "length")}${done}`;
    fc.assert(
      fc.property(fc.array(fc.nat(body.length), { maxLength: 5 }), (cuts) => {
        const stream = new TokenStream();
        const at = [0, ...cuts.sort((a, b) => a - b), body.length];
        for (let i = 1; i < at.length; i++) stream.push(body.slice(at[i - 1], at[i]));
        expect(stream.tokenIds).toEqual([1, 2, 3]);
        expect(stream.end()).toEqual({ type: "finished" });
      }),
    );
  });

  it("is one finish reason, then [DONE], or one error, and nothing more", () => {
    expect(endOf(token(1), fault)).toEqual({ type: "failed", code: "shutting_down" });
    expect(endOf(token(1))).toEqual({ type: "broken", wasAccepted: true });
    for (const wrong of [
      [token(1), done],
      [token(1, "length"), token(2, "length"), done],
      [token(1, "length"), done, done],
      [token(1, "length"), fault],
      [fault, token(1)],
    ]) {
      expect(endOf(...wrong).type).toBe("wrong");
    }
  });
});

describe("a streamed completion", () => {
  const first = 'data: {"choices":[{"token_ids":[7],"finish_reason":null}]}\n\n';

  it("that we leave, that is refused, that breaks off, and that nobody takes, are told apart", async () => {
    expect(await against((response) => void response.write(first), { leaveAfter: 1 })).toEqual({
      tokenIds: [7],
      end: { type: "left" },
    });
    const refuse = (response: ServerResponse) => void response.writeHead(429).end('{"error":{"code":"queue_full"}}');
    expect((await against(refuse)).end).toEqual({ type: "refused", code: "queue_full" });
    const breakOff = (response: ServerResponse) => void response.write(first, () => response.destroy());
    expect(await against(breakOff)).toEqual({ tokenIds: [7], end: { type: "broken", wasAccepted: true } });
    expect((await against((response) => void response.destroy())).end).toEqual({ type: "broken", wasAccepted: false });
  });

  it("without an error code in its refusal is known by its status", () => {
    expect(codeOf({ status: 502, body: Buffer.from("<html>") })).toBe("HTTP 502");
    expect(codeOf({ status: 400, body: Buffer.from("{}") })).toBe("HTTP 400");
  });
});

describe("a cold run", () => {
  const scored = (tokenId: number, logprob: number, top: [number, number][]): ScoredToken => ({
    tokenId,
    logprob,
    top: top.map(([id, value]) => ({ tokenId: id, logprob: value })),
  });
  // Token 9 is padding, likelier than any, and never sampled.
  const scores = [
    null,
    scored(1, -9, [[4, -0.1]]),
    scored(2, -0.2, [
      [9, -0.1],
      [2, -0.2],
    ]),
    scored(3, -0.8, [[5, -0.7]]),
  ];
  const reading = (tolerance: number) => {
    const events = (async function* () {
      yield { type: "prompt", logprobs: scores } as const;
    })();
    const engine = { submit: () => [{ id: 0, events, stop() {} }] } as unknown as ColdRun["engine"];
    return { engine, vocabSize: 9, tolerance };
  };
  const tokenIds = [0, 1, 2, 3];

  it("finds the first token that it would not have chosen, in answers only", async () => {
    expect(await firstWrong(reading(0), { tokenIds, answers: [{ start: 2, end: 3 }] })).toBeUndefined();
    expect(await firstWrong(reading(0), { tokenIds, answers: [{ start: 2, end: 4 }] })).toBe(3);
    expect(await firstWrong(reading(0), { tokenIds, answers: [{ start: 1, end: 2 }] })).toBe(1);
  });

  it("forgives what rounding can do, where it may", async () => {
    expect(await firstWrong(reading(0.3), { tokenIds, answers: [{ start: 2, end: 4 }] })).toBeUndefined();
    expect(await firstWrong(reading(0.3), { tokenIds, answers: [{ start: 1, end: 2 }] })).toBe(1);
  });

  it("that saw nothing of an answer does not approve of it", async () => {
    expect(await firstWrong(reading(0), { tokenIds, answers: [{ start: 4, end: 5 }] })).toBe(4);
  });
});

describe("the ledger", () => {
  it("reports a violation when it happens, and counts", () => {
    const lines: string[] = [];
    const ledger = new Ledger((text) => lines.push(text));
    ledger.count("streams");
    ledger.count("streams", 2);
    ledger.report("wrong end", "two of them");
    expect([ledger.counted("streams"), ledger.counted("others")]).toEqual([3, 0]);
    expect(ledger.reported("wrong end")).toEqual(["two of them"]);
    expect(lines).toEqual(["wrong end: two of them"]);
  });
});

it("a metric is read by its whole name, over all labels", () => {
  const text = 'a_total{x="1"} 2\na_total{x="2"} 3\na_total_more 7\n# a_total help\nb 4\n';
  expect([sumOf(text, "a_total"), sumOf(text, "b")]).toEqual([5, 4]);
  expect(sumOf(text, "a")).toBeNaN();
});

async function against(answer: (response: ServerResponse) => void, options: { leaveAfter?: number } = {}) {
  const server = createServer((_, response) => answer(response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await streamTokens(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, {}, options);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

describe("the soak test's clients", () => {
  it("pause between two actions, each having finished what it began, and stop at the end", async () => {
    const parts = { ledger: new Ledger(() => {}) };
    const soak = new SoakFixture(parts as unknown as SoakParts);
    const slow = gate();
    let [numBegun, numEnded] = [0, 0];
    const client = soak.run(async () => {
      numBegun++;
      await (numBegun === 1 ? slow.held : tick());
      numEnded++;
    });
    let seen: number[] = [];
    const paused = soak.whilePaused(async () => {
      for (let turn = 0; turn < 5; turn++) await tick();
      seen = [numBegun, numEnded];
    });
    for (let turn = 0; turn < 5; turn++) await tick();
    expect(seen).toEqual([]);
    slow.release();
    await paused;
    expect(seen).toEqual([1, 1]);
    while (numBegun < 3) await tick();
    soak.end();
    await client;
    expect(numEnded).toBe(numBegun);
  });
});
