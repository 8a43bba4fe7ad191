/**
 * What a compiled graph must be equal to: PyTorch's fixtures, the oracle, and itself, however its
 * work is cut.
 */
import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compileModel } from "../../src/compiler/compile.ts";
import type { RandomShape } from "../../src/compiler/random-checkpoint.ts";
import type { Manifest, Precision } from "../../src/model/artifact.ts";
import { openCheckpoint } from "../../src/model/checkpoint.ts";
import { ReferenceModel } from "../../src/model/reference.ts";
import { maxDifference, relativeError } from "../helpers/arrays.ts";
import {
  editConfig,
  randomCheckpoint,
  readRawTensors,
  TINY_RETNET,
  TINY_SHAPE,
  temporaryFolder,
  writeRawTensors,
} from "../helpers/checkpoints.ts";
import { logSoftmax, type TalesFixture, type TinyFixture } from "../helpers/torch-fixtures.ts";
import { GraphSession, type States } from "./graph-session.ts";

const TINY_FIXTURES = ["torch-tiny-densemamba", "torch-tiny-mamba", "torch-tiny-shared-gate"];
const DEFAULT_MODEL = "models/densemamba-tales-4m";
const F32_TOLERANCE = 1e-4;

/** Compiles into a folder of its own and opens one of the graphs; both go with `close`. */
async function compiled(modelDir: string, precision: Precision) {
  const dir = temporaryFolder();
  const manifest = await compileModel({ modelDir, precision, outDir: dir });
  const sessions: GraphSession[] = [];
  return {
    manifest,
    async open(graph: keyof Pick<Manifest, "graph" | "decodeGraph"> = "graph"): Promise<GraphSession> {
      const session = await GraphSession.open(dir, manifest, manifest[graph]);
      sessions.push(session);
      return session;
    },
    async close() {
      for (const session of sessions) await session.close();
      await rm(dir, { recursive: true });
    },
  };
}

function expectSameStates(actual: States, expected: ReadonlyMap<string, ArrayLike<number>>, tolerance: number): void {
  for (const [name, values] of expected) {
    expect(maxDifference(actual.get(name)!, values), name).toBeLessThanOrEqual(tolerance);
  }
}

/** One sequence's rows of a batch's states. */
function sequenceStates(states: States, index: number, batch: number): States {
  return new Map(
    [...states].map(([name, all]) => {
      const length = all.length / batch;
      return [name, all.slice(index * length, (index + 1) * length)] as const;
    }),
  );
}

function stackStates(states: readonly States[]): States {
  const names = [...states[0]!.keys()];
  return new Map(names.map((name) => [name, Float32Array.from(states.flatMap((one) => [...one.get(name)!]))] as const));
}

describe.each(TINY_FIXTURES)("%s compiled in f32", (name) => {
  const modelDir = join("test/fixtures", name);
  const fixture = JSON.parse(readFileSync(join(modelDir, "expected.json"), "utf8")) as TinyFixture;
  let artifact: Awaited<ReturnType<typeof compiled>>;
  beforeAll(async () => {
    artifact = await compiled(modelDir, "f32");
  });
  afterAll(() => artifact.close());

  it("gives PyTorch's logits and states for whole sequences", async () => {
    const session = await artifact.open();
    for (const { token_ids, logits, ssm, conv } of fixture.sequences) {
      const result = await session.step([token_ids], session.emptyStates(1));
      for (const [t, row] of logits.entries())
        expect(maxDifference(result.logits[t]!, row)).toBeLessThan(F32_TOLERANCE);
      const states = new Map([
        ...ssm.map((h, l) => [`ssm.${l}`, h.flat()] as const),
        ...conv.map((inputs, l) => [`conv.${l}`, inputs.flat()] as const),
      ]);
      expectSameStates(result.states, states, F32_TOLERANCE);
    }
  });

  it("gives them token by token through the decode graph", async () => {
    const session = await artifact.open("decodeGraph");
    for (const { token_ids, logits } of fixture.sequences) {
      let states = session.emptyStates(1);
      for (const [t, id] of token_ids.entries()) {
        const result = await session.step([[id]], states);
        expect(maxDifference(result.logits[0]!, logits[t]!)).toBeLessThan(F32_TOLERANCE);
        states = result.states;
      }
    }
  });
});

describe("the default model compiled in f32", () => {
  const fixture = JSON.parse(readFileSync("test/fixtures/torch-densemamba-tales.json", "utf8")) as TalesFixture;
  let artifact: Awaited<ReturnType<typeof compiled>>;
  beforeAll(async () => {
    artifact = await compiled(DEFAULT_MODEL, "f32");
  });
  afterAll(() => artifact.close());

  it("gives PyTorch's log-probabilities within 1e-3 and its argmax, on every held-back prompt", async () => {
    const session = await artifact.open();
    for (const { token_ids, logprobs, argmax } of fixture.prompts) {
      const { logits, topIds } = await session.step([token_ids], session.emptyStates(1));
      expect(topIds.map((ids) => ids[0])).toEqual(argmax);
      const given = token_ids.slice(1).map((id, t) => logSoftmax(logits[t]!)[id]!);
      expect(maxDifference(given, logprobs.slice(1) as number[])).toBeLessThan(1e-3);
    }
  });

  it("gives the candidates' probabilities through its sampling outputs", async () => {
    const session = await artifact.open();
    const { token_ids, top } = fixture.prompts[0]!;
    const last = token_ids.length - 1;
    const result = await session.step([token_ids], session.emptyStates(1), [last]);
    for (const [k, { id, logprob }] of top.entries()) {
      expect(result.topIds[0]![k]).toBe(id);
      expect(Math.abs(result.topLogits[0]![k]! - result.logSumExp[0]! - logprob)).toBeLessThan(1e-3);
    }
  });
});

describe.each([
  // f32 kernels differ from the oracle only in the order of sums, int8 ones also by eight-bit
  // weights and activations.
  { precision: "f32", tolerance: F32_TOLERANCE, oracleTolerance: 1e-5 },
  { precision: "int8", tolerance: 0.02, oracleTolerance: 0.05 },
] as const)("a random model compiled in $precision", ({ precision, tolerance, oracleTolerance }) => {
  const tokens = [5, 17, 42, 3, 79, 0, 8, 61, 33, 20, 7];
  let modelDir: string;
  let artifact: Awaited<ReturnType<typeof compiled>>;
  let session: GraphSession;
  beforeAll(async () => {
    modelDir = await randomCheckpoint();
    artifact = await compiled(modelDir, precision);
    session = await artifact.open();
  });
  afterAll(async () => {
    await artifact.close();
    await rm(modelDir, { recursive: true });
  });

  it("equals the oracle, logits and states", async () => {
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const state = oracle.newState();
    const expected = oracle.forward(tokens, state);
    checkpoint.close();
    const result = await session.step([tokens], session.emptyStates(1));
    for (const [t, row] of expected.entries()) {
      expect(relativeError(result.logits[t]!, row)).toBeLessThan(oracleTolerance);
    }
    for (const [name, values] of state) {
      expect(relativeError(result.states.get(name)!, values), name).toBeLessThan(oracleTolerance);
    }
  });

  it("reads a prompt in chunks, then decodes, as it reads the whole", async () => {
    const whole = await session.step([tokens], session.emptyStates(1));
    const decode = await artifact.open("decodeGraph");
    const chunk = await session.step([tokens.slice(0, 4)], session.emptyStates(1));
    const rest = await session.step([tokens.slice(4, 9)], chunk.states);
    const first = await decode.step([tokens.slice(9, 10)], rest.states);
    const second = await session.step([tokens.slice(10)], first.states);
    const pieces = [chunk, rest, first, second].flatMap(({ logits }) => logits);
    for (const [t, row] of whole.logits.entries()) expect(maxDifference(pieces[t]!, row)).toBeLessThan(tolerance);
    expectSameStates(second.states, whole.states, tolerance);
  });

  it("continues sequences of unequal length in one batch as it does each alone", async () => {
    const prompts = [tokens.slice(0, 2), tokens.slice(3, 9), tokens.slice(1, 5)];
    const next = [11, 22, 33];
    const states = [];
    for (const prompt of prompts) states.push((await session.step([prompt], session.emptyStates(1))).states);
    for (const graph of ["graph", "decodeGraph"] as const) {
      const stepper = await artifact.open(graph);
      const batched = await stepper.step(
        next.map((id) => [id]),
        stackStates(states),
      );
      for (const [i, id] of next.entries()) {
        const alone = await stepper.step([[id]], states[i]!);
        expect(maxDifference(batched.logits[i]!, alone.logits[0]!)).toBeLessThan(tolerance);
        expectSameStates(sequenceStates(batched.states, i, next.length), alone.states, tolerance);
      }
    }
  });

  it("gives logits for the rows asked for, and the same states whichever they are", async () => {
    const batch = [tokens.slice(0, 3), tokens.slice(3, 6)];
    const all = await session.step(batch, session.emptyStates(2));
    const some = await session.step(batch, session.emptyStates(2), [2, 5]);
    expect(maxDifference(some.logits[0]!, all.logits[2]!)).toBeLessThan(tolerance);
    expect(maxDifference(some.logits[1]!, all.logits[5]!)).toBeLessThan(tolerance);
    expectSameStates(some.states, all.states, 0);
  });

  it.each([1, 0.7, 1e-3, 50])("gives candidates and normalisers at temperature %s", async (temperature) => {
    const result = await session.step([tokens], session.emptyStates(1), [3, 10], temperature);
    for (const [r, logits] of result.logits.entries()) {
      const sorted = [...logits].sort((a, b) => b - a);
      expect(Array.from(result.topLogits[r]!)).toEqual(sorted.slice(0, 64));
      expect(result.topIds[r]!.map((id) => logits[id])).toEqual(sorted.slice(0, 64));
      const logSum = (scale: number) => {
        const max = sorted[0]! / scale;
        return max + Math.log(sorted.reduce((sum, logit) => sum + Math.exp(logit / scale - max), 0));
      };
      expect(result.logSumExp[r]!).toBeCloseTo(logSum(1), 4);
      const tempered = logSum(temperature);
      expect(Math.abs(result.temperedLogSumExp[r]! - tempered)).toBeLessThan(1e-5 * Math.max(1, Math.abs(tempered)));
    }
  });
});

describe("a model compiled in int8", () => {
  it("stays close to its f32 self on text: same likeliest token, and log-probabilities near", async () => {
    const fixture = JSON.parse(readFileSync("test/fixtures/torch-densemamba-tales.json", "utf8")) as TalesFixture;
    const artifact = await compiled(DEFAULT_MODEL, "int8");
    const session = await artifact.open();
    let numTokens = 0;
    let numSame = 0;
    let sumDifference = 0;
    for (const { token_ids, logprobs, argmax } of fixture.prompts) {
      const { logits, topIds } = await session.step([token_ids], session.emptyStates(1));
      for (const [t, best] of argmax.entries()) {
        numSame += topIds[t]![0] === best ? 1 : 0;
        if (t === 0) continue;
        numTokens++;
        sumDifference += Math.abs(logSoftmax(logits[t - 1]!)[token_ids[t]!]! - logprobs[t]!);
      }
    }
    await artifact.close();
    expect(numSame / (numTokens + fixture.prompts.length)).toBeGreaterThan(0.95);
    expect(sumDifference / numTokens).toBeLessThan(0.05);
  });
});

describe("f32 in plain ONNX is exact where numbers are extreme", () => {
  const SHAPE = { ...TINY_SHAPE, numLayers: 2, denseLayers: 1, tieEmbeddings: false };

  /**
   * Gates of about -16, which are all that a layer's output is made of, and a residual stream as
   * small as that.
   */
  const closedGates = (name: string, values: Float32Array) => {
    if (/embed/.test(name)) return values.map((x) => Math.abs(x) * 1e-6);
    if (/in_proj|to_hidden/.test(name)) return values.fill(-0.55, values.length / 2);
    return values;
  };
  const smallSteps = (name: string, values: Float32Array) => {
    if (/dt_proj\.bias/.test(name)) return values.fill(-24);
    return /conv1d\.weight/.test(name) ? values.map((x) => x * 100) : values;
  };

  it.each<[string, RandomShape, (name: string, values: Float32Array) => Float32Array, number]>([
    ["gates far below zero", SHAPE, closedGates, 64],
    ["a RetNet's gates far below zero", { ...TINY_RETNET, tieEmbeddings: false }, closedGates, 64],
    [
      "step sizes too small to change 1, over a long text",
      { ...SHAPE, hiddenSize: 16, vocabSize: 24, numLayers: 1, denseLayers: 0 },
      smallSteps,
      20_001,
    ],
  ])("%s", async (_, shape, edit, numTokens) => {
    const modelDir = await randomCheckpoint(shape);
    const tensors = readRawTensors(modelDir);
    for (const [name, tensor] of tensors) {
      const edited = edit(name, new Float32Array(new Uint8Array(tensor.bytes).buffer));
      tensors.set(name, { ...tensor, bytes: new Uint8Array(edited.buffer) });
    }
    writeRawTensors(modelDir, tensors);
    editConfig(modelDir, { layer_norm_epsilon: 1e-20, rms_norm_eps: 1e-20 });
    const checkpoint = openCheckpoint(modelDir);
    const oracle = new ReferenceModel(checkpoint);
    const tokens = Array.from({ length: numTokens }, (_, i) => (i * i + 3 * i) % shape.vocabSize);
    const expected = oracle.forward(tokens, oracle.newState()).map((row) => logSoftmax(Array.from(row)));
    checkpoint.close();

    const artifact = await compiled(modelDir, "f32");
    const session = await artifact.open();
    let states = session.emptyStates(1);
    let worst = 0;
    for (let start = 0; start < numTokens; start += 256) {
      const result = await session.step([tokens.slice(start, start + 256)], states);
      for (const [t, row] of result.logits.entries()) {
        worst = Math.max(worst, maxDifference(logSoftmax(Array.from(row)), expected[start + t]!));
      }
      states = result.states;
    }
    expect(worst).toBeLessThan(5e-5);
    await artifact.close();
    await rm(modelDir, { recursive: true });
  });
});
