/**
 * The most that a device could make of a model, from the bytes and operations that its graph for
 * CUDA cannot do without. The section of docs/gpu.md comes from here: `npx tsx
 * bench/gpu/roofline.ts`
 *
 * Matrices are products of tensor cores, or, where they are f32, of the other cores; what looks
 * along time is our own operators. These run one after the other, so their times add up; each takes
 * as long as what it has most of. Activations are taken to stay in the second-level cache;
 * launches, norms and sampling to cost nothing.
 */
import { readFile, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { markdownTable } from "../../src/bench/figures.ts";
import { describeShape, type RandomShape } from "../../src/compiler/random-checkpoint.ts";
import { stateIn, type Target } from "../../src/model/artifact.ts";
import type { ExpectedTensor } from "../../src/model/families/family.ts";
import type { Architecture } from "../../src/model/families/registry.ts";
import { numElements, stateBytes } from "../../src/model/state.ts";
import { replaceSection } from "../page.ts";
import { GPU_SHAPES, PREFILL_CHUNK, sequencesPerPrefill } from "./shapes.ts";

/** Of a second. */
export interface Device {
  readonly bytes: number;
  /** Of f16 or bf16, without sparsity. */
  readonly tensorFlops: number;
  readonly f32Flops: number;
  /** e^x and its like: 16 a clock of each multiprocessor. */
  readonly powers: number;
}

/** As NVIDIA's data sheets have them, of the SXM boards: 132 multiprocessors at 1.98 GHz. */
const HOPPER = { tensorFlops: 989e12, f32Flops: 67e12, powers: 16 * 132 * 1.98e9 };
export const DEVICES = {
  H100: { ...HOPPER, bytes: 3.35e12 },
  H200: { ...HOPPER, bytes: 4.8e12 },
} as const satisfies Record<string, Device>;

/** What a kind of kernels has to do in one pass. */
export type Work = Readonly<Record<keyof Device, number>>;

export interface Pass {
  readonly numSequences: number;
  /** Of each sequence. */
  readonly numSteps: number;
}

const TARGET: Target = { precision: "bf16", lowering: "cuda", statePrecision: "auto" };
const HALF_BYTES = 2;
const F32_BYTES = 4;

export interface PassWork {
  readonly matrices: Work;
  readonly recurrence: Work;
}

/** One row of logits for each sequence. */
export function workOf(shape: RandomShape, pass: Pass): PassWork {
  const { architecture, tensors, state } = describeShape(shape);
  const numTokens = pass.numSequences * pass.numSteps;
  const matrices = { bytes: 0, tensorFlops: 0, f32Flops: 0, powers: 0 };
  for (const tensor of tensors) {
    const size = numElements(tensor.shape);
    switch (roleOf(tensor, architecture)) {
      case "head":
        matrices.bytes += size * HALF_BYTES;
        matrices.tensorFlops += 2 * size * pass.numSequences;
        break;
      case "matrix":
        matrices.bytes += size * HALF_BYTES;
        matrices.tensorFlops += 2 * size * numTokens;
        break;
      case "f32 matrix":
        matrices.bytes += size * F32_BYTES;
        matrices.f32Flops += 2 * size * numTokens;
        break;
      case "table":
        matrices.bytes += tensor.shape[1]! * HALF_BYTES * numTokens;
        break;
      case "vector":
        matrices.bytes += size * F32_BYTES;
    }
  }
  const operations = recurrenceOf(architecture, pass.numSteps);
  return {
    matrices,
    recurrence: {
      bytes: 2 * stateBytes(stateIn(TARGET, state)) * pass.numSequences, // read and written
      tensorFlops: 0,
      f32Flops: operations.f32Flops * numTokens,
      powers: operations.powers * numTokens,
    },
  };
}

type Role = "head" | "matrix" | "f32 matrix" | "table" | "vector";

function roleOf({ name, shape }: ExpectedTensor, architecture: Architecture): Role {
  if (/lm_head/.test(name)) return "head";
  const isTied = "tieEmbeddings" in architecture && architecture.tieEmbeddings;
  if (/embed/.test(name)) return isTied ? "head" : "table";
  if (shape.length !== 2 || /A_log/.test(name)) return "vector";
  return /dt_proj/.test(name) ? "f32 matrix" : "matrix";
}

/** Of one token, in all layers. */
function recurrenceOf(architecture: Architecture, numSteps: number): Pick<Work, "f32Flops" | "powers"> {
  if (architecture.kind === "mamba") {
    const { numLayers, dInner: E, stateSize: N, convKernel: K } = architecture;
    const numWalks = numSteps > 1 ? 2 : 1; // a prompt's segments are walked through twice
    return { f32Flops: numLayers * E * (N * (4 * numWalks + 2) + 2 * K), powers: numLayers * E * (N * numWalks + 4) };
  }
  if (architecture.kind === "mamba2" || architecture.kind === "rwkv7") {
    const { numLayers, numHeads: H, headDim } = architecture;
    const isMamba2 = architecture.kind === "mamba2";
    const state = H * headDim * (isMamba2 ? architecture.stateSize : headDim);
    // A step decays, adds and reads; RWKV-7's also finds what is removed, and removes it.
    return { f32Flops: numLayers * (isMamba2 ? 5 : 9) * state, powers: numLayers * (isMamba2 ? H : H * headDim) };
  }
  const { numLayers, numHeads: H, keyDim, valueDim } = architecture;
  const state = (keyDim / H) * valueDim; // of all heads
  if (numSteps === 1) return { f32Flops: numLayers * 5 * state, powers: 0 };
  return { f32Flops: numLayers * (4 * state + 2 * numSteps * (keyDim + valueDim)), powers: 0 };
}

/** Seconds. */
export function leastTime({ matrices, recurrence }: PassWork, device: Device): number {
  return timeOf(matrices, device) + timeOf(recurrence, device);
}

function timeOf(work: Work, device: Device): number {
  return Math.max(...RESOURCES.map((resource) => work[resource] / device[resource]));
}

const RESOURCES = ["bytes", "tensorFlops", "f32Flops", "powers"] as const;

/** What a pass takes longest for, and its share of the time. */
export function mostOf({ matrices, recurrence }: PassWork, device: Device): string {
  const total = leastTime({ matrices, recurrence }, device);
  const parts = [
    { kind: "weights", other: "matrix products", work: matrices },
    { kind: "states", other: "recurrence", work: recurrence },
  ].map(({ kind, other, work }) => {
    const time = timeOf(work, device);
    return { name: work.bytes / device.bytes === time ? kind : other, time };
  });
  const most = parts.reduce((a, b) => (b.time > a.time ? b : a));
  return `${most.name} ${Math.round((most.time / total) * 100)}%`;
}

export const BATCHES = [1, 32, 320] as const;

export function passesOf(numSequences: number): Readonly<Record<"decode" | "prefill", Pass>> {
  return {
    decode: { numSequences, numSteps: 1 },
    prefill: { numSequences: sequencesPerPrefill(numSequences), numSteps: PREFILL_CHUNK },
  };
}

/** Tokens per second, at most. */
export function mostTokensPerSecond(shape: RandomShape, pass: Pass, device: Device): number {
  return (pass.numSequences * pass.numSteps) / leastTime(workOf(shape, pass), device);
}

export function rooflineSection(): string {
  const rows = Object.entries(GPU_SHAPES).flatMap(([name, shape]) =>
    (["decode", "prefill"] as const).flatMap((kind) =>
      BATCHES.map((numSequences) => {
        const pass = passesOf(numSequences)[kind];
        return [
          name,
          `${kind}, ${numSequences}`,
          ...Object.values(DEVICES).map((device) => thousands(mostTokensPerSecond(shape, pass, device))),
          mostOf(workOf(shape, pass), DEVICES.H200),
        ];
      }),
    ),
  );
  return markdownTable(["tokens/s at most", "sequences", ...Object.keys(DEVICES), "most of the time, H200"], rows);
}

/** Three digits. */
function thousands(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString("en");
}

const PAGE = "docs/gpu.md";

export const ROOFLINE_COMMAND = "npx tsx bench/gpu/roofline.ts";

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const page = await readFile(PAGE, "utf8");
  await writeFile(PAGE, replaceSection(page, "roofline", rooflineSection(), ROOFLINE_COMMAND));
}
