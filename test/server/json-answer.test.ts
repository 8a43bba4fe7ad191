/**
 * Large JSON answers: the same text as JSON.stringify, never as a whole, and with turns for others
 * in between.
 */
import { Writable } from "node:stream";
import fc from "fast-check";
import { Hono } from "hono";
import { describe, expect, it } from "vitest";
import type { AppEnv } from "../../src/server/deps.ts";
import { answerJson } from "../../src/server/http/json-answer.ts";
import { jsonPieces, LazyList } from "../../src/server/openai/json-writer.ts";

const LONG = { stallTimeoutMs: 60_000 };
const NUM_ITEMS = 20_000;
const large = () => ({
  a: [{ items: new LazyList(() => Array(NUM_ITEMS).fill({ token: "é", logprob: -0.5 })), ids: [1, 2] }],
});

describe("pieces of JSON", () => {
  it("are what JSON.stringify writes", () => {
    fc.assert(
      fc.property(fc.object({ withNullPrototype: false, maxDepth: 4 }), (value) => {
        expect([...jsonPieces(value)].join("")).toBe(JSON.stringify(value));
      }),
    );
    expect([
      ...jsonPieces({ a: undefined, b: [null, undefined, { c: undefined }], d: new LazyList(() => []) }),
    ]).toEqual(['{"b":[null,null,{}],"d":[]}']);
  });

  it("stay small, however long a lazy list is", () => {
    const pieces = [...jsonPieces(large())];
    expect(JSON.parse(pieces.join("")).a[0].items).toHaveLength(NUM_ITEMS);
    expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThan(40_000);
  });
});

describe("a large answer", () => {
  /** The socket of a reader who takes all at once: it never gives its turn away by itself. */
  class EagerResponse extends Writable {
    text = "";
    chunkedEncoding = false;
    status = 0;
    onWrite = () => {};
    writeHead(status: number): void {
      this.status = status;
    }
    flushHeaders(): void {}
    override _write(chunk: Buffer, _encoding: string, callback: () => void): void {
      this.text += chunk;
      this.onWrite();
      callback();
    }
  }

  it("lets other work run between its pieces", async () => {
    const outgoing = new EagerResponse({ highWaterMark: 1 });
    // One for each time that the event loop goes round.
    let numTurns = 0;
    let isOver = false;
    const takeTurns = () => {
      numTurns++;
      if (!isOver) setImmediate(takeTurns);
    };
    setImmediate(takeTurns);
    const turnsAtWrites: number[] = [];
    outgoing.onWrite = () => turnsAtWrites.push(numTurns);
    const app = new Hono<AppEnv>().get("/", (context) => answerJson(context, LONG, large()));
    await app.request("/", {}, { outgoing: outgoing as never });
    isOver = true;
    const numWrites = turnsAtWrites.length;
    expect(numWrites).toBeGreaterThan(10);
    expect(JSON.parse(outgoing.text).a[0].items).toHaveLength(NUM_ITEMS);
    // The first two come together.
    for (let i = 2; i < numWrites; i++) expect(turnsAtWrites[i]).toBeGreaterThan(turnsAtWrites[i - 1]!);
  });

  it("is made no faster than it is read, and is cut off if the client does not read", async () => {
    let numMade = 0;
    const endless = new LazyList(function* () {
      for (;;) {
        numMade++;
        yield "x".repeat(1000);
      }
    });
    const app = new Hono<AppEnv>().get("/", (context) => answerJson(context, { stallTimeoutMs: 50 }, { endless }));
    const response = await app.request("/");
    expect(response.headers.get("content-type")).toBe("application/json");
    await expect(response.body!.getReader().closed).rejects.toThrow("stalled");
    expect(numMade).toBeLessThan(1000);
  });

  it("that fails halfway ends its connection and is reported as a failure", async () => {
    const failing = new LazyList(function* () {
      yield "x".repeat(100_000);
      yield "x".repeat(100_000);
      throw new Error("a bug");
    });
    const failures: Error[] = [];
    const app = new Hono<AppEnv>().get("/", (context) => answerJson(context, LONG, { failing }));
    app.onError((error, context) => {
      failures.push(error);
      return context.body(null, 500);
    });
    const outgoing = new EagerResponse();
    await app.request("/", {}, { outgoing: outgoing as never });
    expect(outgoing.destroyed).toBe(true);
    expect(failures.map(({ message }) => message)).toEqual(["a bug"]);
    const response = await app.request("/");
    await expect(response.text()).rejects.toThrow();
  });

  it("is answered as usual if it is small", async () => {
    const app = new Hono<AppEnv>().get("/", (context) => answerJson(context, LONG, { a: new LazyList(() => [1]) }));
    const response = await app.request("/");
    expect(response.status).toBe(200);
    expect(await response.text()).toBe('{"a":[1]}');
  });
});
