/**
 * Mamba and Falcon-Mamba against Hugging Face's transformers: the oracle, both compiled graphs, and
 * int8's nearness.
 */
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { maxDifference, relativeError } from "../helpers/arrays.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { argmax, readTransformersGolden, TRANSFORMERS_GOLDENS } from "../helpers/transformers-goldens.ts";
import { GraphSession } from "./graph-session.ts";

const TOLERANCE = 1e-3;

describe.each(TRANSFORMERS_GOLDENS)("%s gives transformers' logits and argmax at every position", (name) => {
  const { modelDir, sequences } = readTransformersGolden(name);
  const dir = temporaryFolder();
  let session: GraphSession;
  let decode: GraphSession;
  beforeAll(async () => {
    const manifest = await compileModel({ modelDir, precision: "f32", outDir: dir });
    session = await GraphSession.open(dir, manifest);
    decode = await GraphSession.open(dir, manifest, manifest.decodeGraph);
  });
  afterAll(async () => {
    await Promise.all([session.close(), decode.close()]);
    await rm(dir, { recursive: true });
  });

  function expectSame(actual: readonly ArrayLike<number>[], expected: readonly number[][]): void {
    expect(actual.map(argmax)).toEqual(expected.map(argmax));
    for (const [t, row] of expected.entries()) expect(maxDifference(actual[t]!, row)).toBeLessThan(TOLERANCE);
  }

  it("in the oracle", () => {
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    for (const { token_ids, logits } of sequences) expectSame(oracle.forward(token_ids, oracle.newState()), logits);
    checkpoint.close();
  });

  it("in the graph for whole sequences", async () => {
    for (const { token_ids, logits } of sequences) {
      expectSame((await session.step([token_ids], session.emptyStates(1))).logits, logits);
    }
  });

  it("in the decode graph, token by token", async () => {
    for (const { token_ids, logits } of sequences) {
      const rows = [];
      let states = decode.emptyStates(1);
      for (const id of token_ids) {
        const result = await decode.step([[id]], states);
        rows.push(result.logits[0]!);
        states = result.states;
      }
      expectSame(rows, logits);
    }
  });

  it("in int8, nearly", async () => {
    const outDir = temporaryFolder();
    const manifest = await compileModel({ modelDir, precision: "int8", outDir });
    const int8 = await GraphSession.open(outDir, manifest);
    for (const { token_ids, logits } of sequences) {
      const result = await int8.step([token_ids], int8.emptyStates(1));
      for (const [t, row] of logits.entries()) {
        expect(relativeError(result.logits[t]!, row)).toBeLessThan(0.12);
      }
    }
    await int8.close();
    await rm(outDir, { recursive: true });
  });
});
