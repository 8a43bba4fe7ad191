/** The open-loop client: arrivals, what it reads from a stream, and what it makes of the times. */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import * as fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { type DueRecord, summarize } from "../../src/bench/load/latency.ts";
import { poissonArrivals, runOpenLoop, runTogether } from "../../src/bench/load/load.ts";
import { CompletionEvents, streamCompletion } from "../../src/bench/load/stream-client.ts";
import { randomPrompt } from "../../src/bench/random-model.ts";
import { rateTogether } from "../../src/bench/streams.ts";

describe("Poisson arrivals", () => {
  const options = { perSecond: 20, numRequests: 20_000, seed: 7 };

  it("are the same for the same seed, and others for another", () => {
    expect(poissonArrivals(options)).toEqual(poissonArrivals(options));
    expect(poissonArrivals({ ...options, seed: 8 })).not.toEqual(poissonArrivals(options));
  });

  it("have exponential gaps: as many as asked for, with the rate's mean, as spread as they are long", () => {
    const arrivals = poissonArrivals(options);
    const gaps = arrivals.map((at, i) => at - (arrivals[i - 1] ?? 0));
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length;
    expect(gaps.every((gap) => gap >= 0)).toBe(true);
    expect(mean).toBeGreaterThan(48);
    expect(mean).toBeLessThan(52);
    expect(Math.sqrt(variance) / mean).toBeCloseTo(1, 1);
    // Memoryless: a gap longer than its mean has the probability 1/e.
    expect(gaps.filter((gap) => gap > mean).length / gaps.length).toBeCloseTo(1 / Math.E, 1);
  });

  it("come with prompts that differ from each other and stay clear of special ids", () => {
    const prompts = Array.from({ length: 50 }, (_, i) => randomPrompt(16, i));
    expect(new Set(prompts.map(String)).size).toBe(50);
    expect(Math.min(...prompts.flat())).toBeGreaterThanOrEqual(3);
    expect(Math.max(...prompts.flat())).toBeLessThan(253);
  });
});

function event(body: unknown): string {
  return `data: ${typeof body === "string" ? body : JSON.stringify(body)}\n\n`;
}

const token = (text: string) => event({ choices: [{ index: 0, text, finish_reason: null }] });
const STREAM = [
  ": heartbeat\n\n",
  token("Es"),
  token(" war €"),
  event({ choices: [{ index: 0, text: "", finish_reason: "length" }] }),
  event({ choices: [], usage: { prompt_tokens: 4, completion_tokens: 2, total_tokens: 6 } }),
  event("[DONE]"),
].join("");

describe("the events of a completion", () => {
  it("are the same wherever the network cuts the body", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(STREAM.length)), (cuts) => {
        const events = new CompletionEvents();
        const places = [0, ...cuts.toSorted((a, b) => a - b), STREAM.length];
        for (const [i, place] of places.slice(1).entries()) events.push(STREAM.slice(places[i], place), i);
        expect(events.text).toBe("Es war €");
        expect(events.numTokens).toBe(2);
        expect(events.chunkAtMs).toHaveLength(2);
        expect(events.problem(2)).toBeUndefined();
      }),
    );
  });

  it("tell when a stream is shorter than asked, breaks off, or ends with an error", () => {
    const read = (...texts: string[]) => {
      const events = new CompletionEvents();
      for (const text of texts) events.push(text, 0);
      return events;
    };
    expect(read(STREAM).problem(3)).toBe("2 tokens instead of 3");
    expect(read(token("a")).problem(1)).toMatch("broke off");
    expect(read(token("a"), event({ error: { message: "out of slots" } }), event("[DONE]")).problem(1)).toBe(
      "out of slots",
    );
  });
});

describe("the client", () => {
  const servers: ReturnType<typeof createServer>[] = [];
  afterEach(() => {
    for (const server of servers.splice(0)) server.close().closeAllConnections();
  });

  async function serve(answer: (body: string, response: ServerResponse) => void): Promise<string> {
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      request.on("end", () => answer(`${request.method} ${request.url} ${body}`, response));
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
  const request = { promptIds: [5, 6], maxTokens: 2, timeoutMs: 10_000 };

  it("asks for token ids, a fixed length and usage, and times every chunk", async () => {
    let asked = "";
    const baseUrl = await serve((body, response) => {
      asked = body;
      response.writeHead(200, { "content-type": "text/event-stream" }).end(STREAM);
    });
    const record = await streamCompletion({ baseUrl: `${baseUrl}/`, model: "m" }, request);
    expect(record).toMatchObject({ numTokens: 2, text: "Es war €" });
    expect(record.error).toBeUndefined();
    expect(record.chunkAtMs).toHaveLength(2);
    expect(record.chunkAtMs[0]).toBeGreaterThanOrEqual(record.sentAtMs);
    expect(record.endedAtMs).toBeGreaterThanOrEqual(record.chunkAtMs[1]!);
    expect(asked).toMatch(/^POST \/v1\/completions /);
    expect(JSON.parse(asked.replace(/^POST \S+ /, ""))).toEqual({
      model: "m",
      prompt: [5, 6],
      max_tokens: 2,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    });
  });

  it("makes a result of every failure", async () => {
    const refusing = await serve((_, response) => response.writeHead(429).end('{"error":{"message":"full"}}'));
    expect((await streamCompletion({ baseUrl: refusing }, request)).error).toMatch(/^HTTP 429: .*full/);
    const cutting = await serve((_, response) => {
      response.writeHead(200).write(token("a"));
      setImmediate(() => response.destroy());
    });
    expect((await streamCompletion({ baseUrl: cutting }, request)).error).toBeDefined();
    const silent = await serve(() => {});
    const slow = await streamCompletion({ baseUrl: silent }, { ...request, timeoutMs: 20 });
    expect(slow.error).toBe("no byte for 20 ms");
    expect((await streamCompletion({ baseUrl: "http://127.0.0.1:9" }, request)).error).toMatch("ECONNREFUSED");
  });

  it("sends every request of an open loop though none is answered before all have come", async () => {
    const waiting: ServerResponse[] = [];
    const baseUrl = await serve((_, response) => {
      waiting.push(response);
      if (waiting.length === 6) for (const held of waiting) held.writeHead(200).end(STREAM);
    });
    const load = { perSecond: 500, numRequests: 6, promptTokens: 3, outputTokens: 2, seed: 1, timeoutMs: 10_000 };
    const records = await runOpenLoop({ baseUrl }, load);
    expect(records.map(({ error }) => error)).toEqual(new Array(6).fill(undefined));
    for (const [i, { dueAtMs, sentAtMs }] of records.entries()) {
      expect(sentAtMs).toBeGreaterThanOrEqual(dueAtMs);
      expect(dueAtMs).toBeGreaterThanOrEqual(records[i - 1]?.dueAtMs ?? 0);
    }
  });

  it("gives no rate of streams that run together if one of them fails", async () => {
    let numAsked = 0;
    const baseUrl = await serve((_, response) => {
      if (++numAsked === 2) response.writeHead(500).end("broken");
      else response.writeHead(200).end(STREAM);
    });
    const load = { numStreams: 3, promptTokens: 3, outputTokens: 2, seed: 1, timeoutMs: 10_000 };
    await expect(runTogether({ baseUrl }, load)).rejects.toThrow("HTTP 500: broken");
  });
});

describe("the rate of streams together", () => {
  it("counts only while all of them run, and a chunk as its share of the tokens", () => {
    const a = { chunkAtMs: [0, 10, 20, 30, 40], numTokens: 5 };
    const b = { chunkAtMs: [10, 20, 30], numTokens: 6 }; // two tokens a chunk
    // From 10 to 30 ms: two chunks of each.
    expect(rateTogether([a, b])).toBeCloseTo(((2 * 1 + 2 * 2) / 20) * 1000);
  });
});

describe("latencies", () => {
  /** Sent 5 ms late, first token 100 ms after it was due, then `tpot` a token. */
  function record(dueAtMs: number, tpot: number, numTokens = 5): DueRecord {
    const chunkAtMs = Array.from({ length: numTokens }, (_, i) => dueAtMs + 100 + i * tpot);
    return { dueAtMs, sentAtMs: dueAtMs + 5, chunkAtMs, endedAtMs: chunkAtMs.at(-1)! + 1, numTokens, text: "x" };
  }
  const objective = { ttftMs: 100, tpotMs: 20 };

  it("count from when a request was due, not from when it was sent", () => {
    const figures = summarize([record(1000, 10), record(2000, 10), record(3000, 10)], objective);
    expect(figures.ttft).toEqual({ p50: 100, p90: 100, p99: 100 });
    expect(figures.tpot.p50).toBe(10);
    expect(figures.itl).toEqual({ p50: 10, p90: 10, p99: 10 });
    expect(figures.e2e.p99).toBe(141);
    expect(figures.offeredPerSecond).toBeCloseTo(1);
    expect(figures.tokensPerSecond).toBeCloseTo(15 / 2.141);
  });

  it("make a request good only if it meets the whole objective", () => {
    const records = [record(0, 20), record(500, 21), record(1000, 20), record(1500, 5)];
    const strict = summarize(records, objective);
    expect(strict.goodShare).toBe(0.75);
    expect(strict.goodputPerSecond).toBeCloseTo((3 / (1500 + 121)) * 1000);
    expect(summarize(records, { ttftMs: 99, tpotMs: 20 }).goodShare).toBe(0);
  });

  it("leave failed requests out and count them", () => {
    const failed: DueRecord = { ...record(500, 1), error: "HTTP 429: full" };
    const figures = summarize([record(0, 10), failed, record(1000, 10)], objective);
    expect(figures).toMatchObject({ numRequests: 3, numErrors: 1, firstError: "HTTP 429: full" });
    expect(figures.tpot.p50).toBe(10);
    expect(figures.goodShare).toBeCloseTo(2 / 3);
  });

  it("of several tokens in a chunk tell the pace by tokens and the gap by chunks", () => {
    const figures = summarize([{ ...record(0, 30, 3), numTokens: 7 }, record(1, 1, 1)], objective);
    expect(figures.tpot.p50).toBe(10);
    expect(figures.itl.p50).toBe(30);
  });
});
