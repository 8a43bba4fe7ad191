/**
 * A RetNet's prompt through our own operators in chunks as large as a server's: the chunk-wise
 * form, where a token of the chunk sees hundreds of others at once, against the recurrence, which
 * reads them one at a time.
 */
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { relativeError } from "../helpers/arrays.ts";
import { randomCheckpoint, TINY_RETNET } from "../helpers/checkpoints.ts";
import { hasKernels, OwnGraph } from "./own-graph.ts";

const LENGTH = 512;
const TOKENS = Array.from({ length: LENGTH }, (_, i) => (i * i * 7 + i * 31) % TINY_RETNET.vocabSize);

describe.runIf(hasKernels).each([
  { precision: "f32", tolerance: 1e-4 },
  // The order of sums may tip a rounding to 8 bits, here and there.
  { precision: "int8", tolerance: 1e-2 },
] as const)("a DenseRetNet in $precision, through our own operators", ({ precision, tolerance }) => {
  let modelDir: string;
  let graph: OwnGraph;
  let recurrent: Float32Array[];
  beforeAll(async () => {
    modelDir = await randomCheckpoint(TINY_RETNET);
    graph = await OwnGraph.open(modelDir, precision);
    const ones = TOKENS.map(() => 1);
    recurrent = (await graph.read([TOKENS], ones))[0]!;
  });
  afterAll(async () => {
    await graph.close();
    await rm(modelDir, { recursive: true });
  });

  it.each([64, 100, 128, 256, 512])("reads chunks of %s as it reads token by token", async (chunk) => {
    const lengths = Array.from({ length: Math.ceil(LENGTH / chunk) }, (_, i) => Math.min(chunk, LENGTH - i * chunk));
    const [rows] = await graph.read([TOKENS], lengths);
    for (const [t, row] of recurrent.entries()) expect(relativeError(rows![t]!, row)).toBeLessThan(tolerance);
  });

  it("gives a sequence the same bits alone and beside others, read in the same pieces", async () => {
    const others = [1, 3, 5].map((step) => TOKENS.slice(0, 40).map((id) => (id * step) % TINY_RETNET.vocabSize));
    for (const lengths of [[32, 8], Array<number>(40).fill(1)]) {
      const together = await graph.read(others, lengths);
      for (const [i, tokens] of others.entries()) expect((await graph.read([tokens], lengths))[0]).toEqual(together[i]);
    }
  });
});

describe.runIf(hasKernels)("a DenseRetNet in f32, through our own operators", () => {
  it("equals the oracle at the end of a chunk of 512", async () => {
    const modelDir = await randomCheckpoint(TINY_RETNET);
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const expected = oracle.forward(TOKENS, oracle.newState());
    checkpoint.close();
    const graph = await OwnGraph.open(modelDir, "f32");
    const [rows] = await graph.read([TOKENS]);
    for (const [t, row] of expected.entries()) expect(relativeError(rows![t]!, row)).toBeLessThan(1e-4);
    await graph.close();
    await rm(modelDir, { recursive: true });
  });
});
