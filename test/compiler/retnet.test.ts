/** The compiled RetNet graphs against the authors' code, against the oracle, and against themselves cut up otherwise. */
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import type { Manifest, Precision } from "../../src/model/artifact.ts";
import { maxDifference } from "../helpers/arrays.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { RETNET_GOLDENS, readRetNetGolden } from "../helpers/retnet-goldens.ts";
import { GraphSession } from "./graph-session.ts";

interface Compiled {
  readonly graph: GraphSession;
  readonly decode: GraphSession;
  close(): Promise<void>;
}

async function compiled(modelDir: string, precision: Precision): Promise<Compiled> {
  const dir = temporaryFolder();
  const manifest: Manifest = await compileModel({ modelDir, precision, outDir: dir });
  const graph = await GraphSession.open(dir, manifest);
  const decode = await GraphSession.open(dir, manifest, manifest.decodeGraph);
  return {
    graph,
    decode,
    async close() {
      await graph.close();
      await decode.close();
      await rm(dir, { recursive: true });
    },
  };
}

function expectSameLogits(actual: readonly Float32Array[], expected: readonly Float32Array[], tolerance: number): void {
  expect(actual).toHaveLength(expected.length);
  for (const [t, row] of expected.entries()) {
    expect(maxDifference(actual[t]!, row)).toBeLessThan(tolerance);
    expect(actual[t]!.indexOf(Math.max(...actual[t]!))).toBe(row.indexOf(Math.max(...row)));
  }
}

/** Logits of every token, read in passes of the given lengths; passes of one go through `single`. */
async function readInPasses(session: GraphSession, single: GraphSession, tokenIds: number[], lengths: number[]) {
  const logits: Float32Array[] = [];
  let states = session.emptyStates(1);
  let start = 0;
  for (const length of lengths) {
    const result = await (length === 1 ? single : session).step([tokenIds.slice(start, start + length)], states);
    logits.push(...result.logits);
    states = result.states;
    start += length;
  }
  return { logits, states };
}

describe.each(RETNET_GOLDENS)("%s compiled in f32", (name) => {
  const golden = readRetNetGolden(name);
  const TOLERANCE = 2e-4;
  let artifact: Compiled;
  beforeAll(async () => {
    artifact = await compiled(golden.modelDir, "f32");
  });
  afterAll(() => artifact.close());

  it("gives the authors' logits in one pass", async () => {
    const { graph } = artifact;
    const result = await graph.step(
      golden.sequences.map(({ tokenIds }) => tokenIds),
      graph.emptyStates(golden.sequences.length),
    );
    expectSameLogits(
      result.logits,
      golden.sequences.flatMap(({ logits }) => logits),
      TOLERANCE,
    );
  });

  it("gives them token by token, through either graph", async () => {
    for (const { tokenIds, logits } of golden.sequences) {
      const ones = tokenIds.map(() => 1);
      for (const session of [artifact.graph, artifact.decode]) {
        const result = await readInPasses(artifact.graph, session, tokenIds, ones);
        expectSameLogits(result.logits, logits, TOLERANCE);
      }
    }
  });

  it.each([[[13, 27]], [[1, 2, 3, 34]], [[20, 1, 1, 18]], [[39, 1]]])("gives them in chunks of %s", async (lengths) => {
    for (const { tokenIds, logits } of golden.sequences) {
      const result = await readInPasses(artifact.graph, artifact.decode, tokenIds, lengths);
      expectSameLogits(result.logits, logits, TOLERANCE);
    }
  });
});
