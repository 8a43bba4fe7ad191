/**
 * The hidden states that a graph gives on demand are those that its logits are made of: in both
 * runners, plain and with our operators, in f32 and int8, in a batch of unequal lengths where the
 * graph takes one.
 */
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { openRunner } from "../../src/runtime/open.ts";
import type { ModelRunner } from "../../src/runtime/runner.ts";
import { relativeError } from "../helpers/arrays.ts";
import {
  randomCheckpoint,
  TINY_MAMBA2,
  TINY_RETNET,
  TINY_RWKV7,
  TINY_SHAPE,
  temporaryFolder,
} from "../helpers/checkpoints.ts";
import { hasKernels, OwnGraph } from "./own-graph.ts";

const SHAPES: RandomShape[] = [TINY_SHAPE, TINY_MAMBA2, TINY_RETNET, TINY_RWKV7];
const TOKENS = [
  [5, 9, 30, 7, 2, 41, 11, 12, 3],
  [4, 17, 8, 22],
];
/** Where lengths must be equal. */
const EQUAL = TOKENS.map((ids) => ids.slice(0, 4));

type Open = (modelDir: string) => Promise<{ readonly runner: ModelRunner; close(): Promise<void> }>;

function plain(kind: "native" | "portable", precision: "f32" | "int8"): Open {
  return async (modelDir) => {
    const artifactDir = temporaryFolder();
    await compileModel({ modelDir, precision, outDir: artifactDir });
    const runner = await openRunner(kind, { artifactDir, numSlots: 2, numThreads: 1, device: "cpu" });
    return {
      runner,
      async close() {
        await runner.close();
        await rm(artifactDir, { recursive: true });
      },
    };
  };
}

/** In int8, 0.15 as for the logits of a random RetNet. */
const KINDS: [string, Open, number][] = [
  ["native f32", plain("native", "f32"), 1e-5],
  ["portable f32", plain("portable", "f32"), 1e-5],
  ["native int8", plain("native", "int8"), 0.15],
  ["portable int8", plain("portable", "int8"), 0.15],
];
if (hasKernels) {
  KINDS.push(
    ["own operators f32", (modelDir) => OwnGraph.open(modelDir, "f32"), 1e-5],
    ["own operators int8", (modelDir) => OwnGraph.open(modelDir, "int8"), 0.15],
  );
}

describe.each(SHAPES)("of a random %j", (shape) => {
  let modelDir: string;
  beforeAll(async () => {
    modelDir = await randomCheckpoint(shape);
  });
  afterAll(() => rm(modelDir, { recursive: true }));

  const oracleOf = (tokens: readonly number[]): Float32Array[] => {
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const hidden = oracle.hidden(tokens, oracle.newState());
    checkpoint.close();
    return hidden;
  };

  describe.each(KINDS)("%s", (_, open, tolerance) => {
    let opened: Awaited<ReturnType<Open>>;
    beforeAll(async () => {
      opened = await open(modelDir);
    });
    afterAll(() => opened?.close());

    it("gives the oracle's, in a pass and in a step", async () => {
      const { runner } = opened;
      const batch = runner.manifest.ragged ? TOKENS : EQUAL;
      for (const slot of batch.keys()) await runner.clearSlot(slot);
      const pass = batch.map((ids) => ids.slice(0, -1));
      const steps = batch.map((ids) => ids.slice(-1));
      const actual: Float32Array[][] = batch.map(() => []);
      for (const tokens of [pass, steps]) {
        const rows = tokens.flat().map((_, row) => row);
        const { hiddenOf } = await runner.run({
          ...{ firstSlot: 0, lengths: tokens.map(({ length }) => length), tokenIds: tokens.flat() },
          ...{ logitRows: rows, temperatures: rows.map(() => 1), wantsHidden: true },
        });
        let row = 0;
        for (const [b, ids] of tokens.entries()) for (const _ of ids) actual[b]!.push(hiddenOf(row++).slice());
      }
      for (const [b, ids] of batch.entries()) {
        for (const [t, expected] of oracleOf(ids).entries()) {
          expect(actual[b]![t]).toHaveLength(expected.length);
          expect(relativeError(actual[b]![t]!, expected)).toBeLessThan(tolerance);
        }
      }
    });

    it("gives the same logits with them as without", async () => {
      const { runner } = opened;
      const logits: Float32Array[] = [];
      for (const wantsHidden of [false, true, false]) {
        await runner.clearSlot(0);
        const [first] = TOKENS;
        const input = { firstSlot: 0, lengths: [first!.length], tokenIds: first!, logitRows: [3, 8] };
        const output = await runner.run({ ...input, temperatures: [1, 1], wantsHidden });
        logits.push(output.logitsOf(1).slice());
        if (!wantsHidden) expect(() => output.hiddenOf(0)).toThrow("did not want hidden states");
      }
      expect(logits[1]).toEqual(logits[0]);
      expect(logits[2]).toEqual(logits[0]);
    });
  });
});
