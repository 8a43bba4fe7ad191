/**
 * `/v1/embeddings` over the real generation, engine, runtimes and default model, by OpenAI's own
 * client, against the oracle.
 */
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { openRunner } from "../../src/runtime/open.ts";
import { DEFAULT_MODEL_DIR, post, type RealServer, startRealServer } from "../helpers/real-server.ts";

const TEXTS = ["Once upon a time there was a king.", "The king lived in a castle by the sea.", "rain"];
const HIDDEN_SIZE = 256;
const LONG = "sea ".repeat(3000);

interface EmbeddingList {
  data: { index: number; embedding: number[] }[];
  usage: { prompt_tokens: number; total_tokens: number };
}

const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const unit = (vector: readonly number[]) => vector.map((value) => value / Math.sqrt(dot(vector, vector)));

const checkpoint = openCheckpoint(DEFAULT_MODEL_DIR);
afterAll(() => checkpoint.close());

function expectedVector(tokenIds: readonly number[], pooling: "mean" | "last"): number[] {
  const oracle = new ReferenceModel(checkpoint);
  const hidden = oracle.hidden(tokenIds, oracle.newState());
  if (pooling === "last") return unit(Array.from(hidden.at(-1)!));
  return unit(Array.from(hidden[0]!, (_, i) => hidden.reduce((sum, row) => sum + row[i]!, 0)));
}

describe.each(["native", "portable"] as const)("in the %s runtime", (kind) => {
  let server: RealServer;
  beforeAll(async () => {
    const limits = { maxBatch: 3, maxQueue: 4, prefillChunk: 16 };
    server = await startRealServer({ limits, openRunner: (options) => openRunner(kind, options) });
  });
  afterAll(() => server?.close());

  const client = () => new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
  async function embed(body: object): Promise<EmbeddingList> {
    const response = await post(`${server.url}/v1/embeddings`, body);
    expect(response.status, await response.clone().text()).toBe(200);
    return (await response.json()) as EmbeddingList;
  }
  async function tokenize(prompt: string): Promise<number[]> {
    const response = await post(`${server.url}/tokenize`, { prompt });
    return ((await response.json()) as { tokens: number[] }).tokens;
  }

  it.each(["mean", "last"] as const)("the %s is the oracle's, of length 1", async (pooling) => {
    const { data, usage } = await embed({ input: TEXTS, pooling });
    let numTokens = 0;
    for (const [index, text] of TEXTS.entries()) {
      const ids = await tokenize(text);
      numTokens += ids.length;
      const { embedding } = data[index]!;
      expect(embedding).toHaveLength(HIDDEN_SIZE);
      expect(dot(embedding, expectedVector(ids, pooling))).toBeCloseTo(1, 5);
      expect(dot(embedding, embedding)).toBeCloseTo(1, 5);
    }
    expect(usage).toEqual({ prompt_tokens: numTokens, total_tokens: numTokens });
  });

  it("is what OpenAI's client reads, which asks for base64", async () => {
    const { data, model } = await client().embeddings.create({ model: "fake-4m", input: TEXTS });
    const plain = await embed({ input: TEXTS });
    expect(model).toBe("fake-4m");
    expect(data.map(({ index }) => index)).toEqual([0, 1, 2]);
    for (const [index, { embedding }] of data.entries()) {
      expect(embedding).toHaveLength(HIDDEN_SIZE);
      expect(Math.fround(plain.data[index]!.embedding[7]!)).toBe(embedding[7]);
    }
    const floats = await client().embeddings.create({ model: "fake-4m", input: TEXTS[0]!, encoding_format: "float" });
    expect(floats.data[0]!.embedding).toEqual(plain.data[0]!.embedding);
  });

  it("of fewer dimensions is the beginning, of length 1 again", async () => {
    const { data: whole } = await embed({ input: TEXTS[0] });
    const { data: short } = await embed({ input: TEXTS[0], dimensions: 10 });
    expect(short[0]!.embedding).toHaveLength(10);
    for (const [i, value] of unit(whole[0]!.embedding.slice(0, 10)).entries()) {
      expect(short[0]!.embedding[i]).toBeCloseTo(value, 6);
    }
  });

  it("of token ids is that of their text, and of more texts than there are slots that of each", async () => {
    const ids = await Promise.all(TEXTS.map(tokenize));
    const texts = await embed({ input: TEXTS });
    expect((await embed({ input: ids })).data).toEqual(texts.data);
    expect((await embed({ input: ids[1] })).data[0]!.embedding).toEqual(texts.data[1]!.embedding);
    const many = await embed({ input: Array.from({ length: 40 }, (_, i) => TEXTS[i % 3]!) });
    expect(many.data.map(({ embedding }) => embedding)).toEqual(
      Array.from({ length: 40 }, (_, i) => texts.data[i % 3]!.embedding),
    );
    await expect.poll(() => server.engine.load).toMatchObject({ slotsInUse: 0, numWaiting: 0 });
  });
});

describe("a request", () => {
  let server: RealServer;
  beforeAll(async () => {
    const limits = { maxBatch: 8, maxQueue: 8, prefillChunk: 64 };
    server = await startRealServer({ limits });
  });
  afterAll(() => server?.close());

  it("of many texts holds up no other", async () => {
    const asked = post(`${server.url}/v1/embeddings`, { input: Array.from({ length: 300 }, (_, i) => `${i}`) });
    let isOver = false;
    const answered = asked.then(async (response) => {
      const list = (await response.json()) as EmbeddingList;
      isOver = true;
      return list;
    });
    let numPings = 0;
    while (!isOver) {
      await (await fetch(`${server.url}/health`)).text();
      numPings++;
    }
    expect((await answered).data).toHaveLength(300);
    expect(numPings).toBeGreaterThan(10);
  });

  it("stops when its client leaves, and frees its slots", async () => {
    const abort = new AbortController();
    const input = Array(100).fill("The sea was calm. ".repeat(50));
    const asked = post(`${server.url}/v1/embeddings`, { input }, abort.signal).catch((error: Error) => error.name);
    await expect.poll(() => server.engine.load.slotsInUse, { timeout: 10_000 }).toBeGreaterThan(0);
    abort.abort();
    expect(await asked).toBe("AbortError");
    await expect.poll(() => server.engine.load).toMatchObject({ slotsInUse: 0, numWaiting: 0 });
  });

  it.each<[body: object, error: object]>([
    [{}, { param: "input", message: "input is required" }],
    [{ input: "" }, { param: "input", message: "input must not be empty" }],
    [{ input: [] }, { param: "input", message: "input must not be empty" }],
    [{ input: ["a", ""] }, { param: "input[1]", message: "input[1] must not be empty" }],
    [{ input: [[]] }, { param: "input[0]" }],
    [{ input: [["a"]] }, { param: "input[0][0]" }],
    [{ input: [5, 99999] }, { param: "input[1]", message: expect.stringContaining("got 99999") }],
    [{ input: Array(2049).fill("a") }, { param: "input", message: expect.stringContaining("at most 2048") }],
    [
      { input: "a", dimensions: 0 },
      { param: "dimensions", message: "dimensions must be at least 1; got 0" },
    ],
    [
      { input: "a", dimensions: 257 },
      { param: "dimensions", message: "dimensions must be at most 256; got 257" },
    ],
    [{ input: "a", encoding_format: "int8" }, { param: "encoding_format" }],
    [{ input: "a", pooling: "cls" }, { param: "pooling" }],
    [{ input: ["a", LONG] }, { code: "context_length_exceeded", param: "input[1]" }],
    [{ input: LONG }, { code: "context_length_exceeded", param: "input" }],
    [
      { input: "a", normalize: false },
      { code: "unsupported_value", param: "normalize" },
    ],
    [
      { input: "a", task: "retrieval.query" },
      { code: "unsupported_value", param: "task" },
    ],
  ])("is refused: %#", async (body, error) => {
    const response = await post(`${server.url}/v1/embeddings`, body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error });
  });

  it("a text that is too long is cut where that is asked for", async () => {
    const response = await post(`${server.url}/v1/embeddings`, {
      input: "sea ".repeat(3000),
      truncate_prompt_tokens: 9,
    });
    expect(((await response.json()) as EmbeddingList).usage.prompt_tokens).toBe(9);
  });
});
