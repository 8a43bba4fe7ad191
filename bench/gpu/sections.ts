/**
 * What scripts/gpu-check.sh tries and measures on a device. A section runs in a process of its own
 * (check.ts), since what one breaks on a device is not to break another; each of its figures is
 * reported as soon as it is there.
 */
import { existsSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { measureDecode, readPrompt } from "../../src/bench/runner.ts";
import { ensureArtifact } from "../../src/compiler/artifact-cache.ts";
import { type RandomShape, writeRandomCheckpoint } from "../../src/compiler/random-checkpoint.ts";
import type { Precision } from "../../src/model/artifact.ts";
import { openKernels } from "../../src/runtime/native/kernel-library.ts";
import { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import { loadSharedLibrary } from "../../src/runtime/native/shared-library.ts";
import type { ModelRunner } from "../../src/runtime/runner.ts";
import { maxDifference } from "../../test/helpers/arrays.ts";
import { readGoldens } from "../../test/helpers/goldens.ts";
import { readPasses } from "../../test/helpers/read-pass.ts";
import { GPU_SHAPES, type GpuShape, PREFILL_CHUNK, sequencesPerPrefill } from "./shapes.ts";

export interface Setup {
  /** ONNX Runtime's library, with the CUDA provider beside it. */
  readonly ort: string;
  /** Our own operators, compiled; or the compiler. */
  readonly kernels: string | undefined;
  readonly nvcc: string;
  /** Preloaded: bench/gpu/count-calls.c, compiled. */
  readonly counter: string | undefined;
  readonly cacheDir: string;
  /** Small models and few numbers, to see that all of it runs. */
  readonly isTiny: boolean;
}

export interface GoldenFigure {
  readonly kind: "golden";
  readonly name: string;
  readonly precision: Precision;
  /** The largest of all logits; null: one was no number. */
  readonly difference: number | null;
  readonly tolerance: number;
}

/** What ONNX Runtime's provider asks of CUDA in one run. */
export interface CallsFigure {
  readonly kind: "calls";
  readonly run: string;
  readonly copies: number;
  readonly bytes: number;
  readonly waits: number;
}

export interface SpeedFigure {
  readonly kind: "speed";
  readonly shape: string;
  readonly precision: Precision;
  readonly numSequences: number;
  readonly pass: "decode, captured" | "decode, not captured" | "prefill";
  readonly tokensPerSecond: number;
}

export interface FlatnessFigure {
  readonly kind: "flatness";
  readonly shape: string;
  readonly numTokens: number;
  readonly stepMs: number;
}

/** A runner's own words: what it does otherwise than it was meant to. */
export interface NoteFigure {
  readonly kind: "note";
  readonly text: string;
}

export type Figure = GoldenFigure | CallsFigure | SpeedFigure | FlatnessFigure | NoteFigure;
type Report = (figure: Figure) => void;

const TINY: RandomShape = {
  hiddenSize: 32,
  numLayers: 2,
  vocabSize: 300,
  denseLayers: 1,
  stateSize: 8,
  timeStepRank: 4,
};
const TINY_RETNET: RandomShape = { ...TINY, kind: "retnet", numHeads: 2, keyDim: 24 };
/** What our own operators may be given: states of one, of several and of many lanes. */
const EXERCISES: Readonly<Record<string, RandomShape>> = {
  "tiny-densemamba": TINY,
  "tiny-mamba-64": { ...TINY, denseLayers: 0, stateSize: 64 },
  "tiny-mamba-100": { ...TINY, denseLayers: 0, stateSize: 100 },
  "tiny-denseretnet": TINY_RETNET,
};

/**
 * Section → what it does. In the order in which they run, so that what is most wanted comes first.
 */
export const SECTIONS: Readonly<Record<string, (setup: Setup, report: Report) => Promise<void>>> = {
  goldens: checkGoldens,
  calls: countCalls,
  "mamba-130m": (setup, report) => measureSpeed("mamba-130m", setup, report),
  flatness: measureFlatness,
  "retnet-350m": (setup, report) => measureSpeed("retnet-350m", setup, report),
  "mamba-370m": (setup, report) => measureSpeed("mamba-370m", setup, report),
  "mamba-1.4b": (setup, report) => measureSpeed("mamba-1.4b", setup, report),
};

/** What devices of sm_80 and later are given, unless something else is asked for. */
const SERVED: Precision = "bf16";

type Tolerances = Parameters<typeof readGoldens>[0];
/** Of logits. A number has 11 bits in f16, and 8 in bf16. */
const TOLERANCES: Partial<Record<Precision, Tolerances>> = {
  f32: { torch: 1e-4, transformers: 1e-3, retnet: 2e-4 },
  f16: { torch: 0.045, transformers: 0.03, retnet: 0.1 },
  bf16: { torch: 0.36, transformers: 0.24, retnet: 0.8 },
};

async function checkGoldens(setup: Setup, report: Report): Promise<void> {
  for (const [precision, tolerances] of Object.entries(TOLERANCES) as [Precision, Tolerances][]) {
    const goldens = readGoldens(tolerances);
    for (const { name, modelDir, sequences, tolerance } of setup.isTiny ? goldens.slice(-1) : goldens) {
      await withRunner(setup, { modelDir, precision, numSlots: 2 }, report, async (runner) => {
        const differences: number[] = [];
        for (const { tokenIds, logits } of setup.isTiny ? sequences.slice(0, 1) : sequences) {
          for (const lengths of [[tokenIds.length], [1, 1, tokenIds.length - 3, 1]]) {
            await runner.clearSlot(0);
            const [rows] = await readPasses(runner, [tokenIds], lengths);
            for (const [t, row] of logits.entries()) differences.push(maxDifference(rows![t]!, row));
          }
        }
        report({ kind: "golden", name, precision, difference: worstOf(differences), tolerance });
      });
    }
  }
}

function worstOf(differences: readonly number[]): number | null {
  return differences.every(Number.isFinite) ? Math.max(...differences) : null;
}

async function countCalls(setup: Setup, report: Report): Promise<void> {
  if (setup.counter === undefined) throw new Error("a C compiler is needed to count calls");
  const counter = loadSharedLibrary(setup.counter);
  const count = (name: string): number => Number(counter.func(`counted_${name}`, "uint64", [])());
  const modelDir = await checkpointOf(setup, "tiny-densemamba", TINY);
  await withRunner(setup, { modelDir, precision: SERVED, numSlots: 33 }, report, async (runner) => {
    if (count("copies") === 0) throw new Error("no call was counted, where the weights were copied to the device");
    const runs = {
      "a captured step of 1": () => measureDecode(runner, { numSequences: 1, numSteps: 1 }),
      "a captured step of 32": () => measureDecode(runner, { numSequences: 32, numSteps: 1 }),
      "a step of 32": () => measureDecode(runner, { numSequences: 32, numSteps: 1, firstSlot: 1 }),
      "a prompt of 40": async () => {
        for (let i = 0; i < NUM_RUNS; i++) await readPrompt(runner, 40, 40);
      },
    };
    for (const [run, repeat] of Object.entries(runs)) {
      await repeat(); // warms up, and captures
      const before = COUNTED.map(count);
      await repeat();
      const [copies, bytes, waits] = COUNTED.map((name, i) => (count(name) - before[i]!) / NUM_RUNS);
      report({ kind: "calls", run, copies: copies!, bytes: bytes!, waits: waits! });
    }
  });
}

const COUNTED = ["copies", "bytes", "waits"];
/** As many as `measureDecode` makes for one step. */
const NUM_RUNS = 4;

async function measureSpeed(name: GpuShape, setup: Setup, report: Report): Promise<void> {
  const shape = setup.isTiny ? (GPU_SHAPES[name].kind === "retnet" ? TINY_RETNET : TINY) : GPU_SHAPES[name];
  const batches = setup.isTiny ? [1, 2] : [1, 8, 32, 64, 320];
  const chunk = setup.isTiny ? 20 : PREFILL_CHUNK;
  const numSteps = setup.isTiny ? 2 : 50;
  const modelDir = await checkpointOf(setup, name, shape);
  const precision = SERVED;
  const opened = { modelDir, precision, numSlots: Math.max(...batches) + 1 };
  await withRunner(setup, opened, report, async (runner) => {
    for (const numSequences of batches) {
      const tell = (pass: SpeedFigure["pass"], numTokens: number, ms: number) =>
        report({ kind: "speed", shape: name, precision, numSequences, pass, tokensPerSecond: (numTokens / ms) * 1000 });
      const step = { numSequences, numSteps };
      tell("decode, captured", numSequences, await measureDecode(runner, step));
      // Steps that do not begin with the first slot are not captured.
      tell("decode, not captured", numSequences, await measureDecode(runner, { ...step, firstSlot: 1 }));
      const numTogether = setup.isTiny ? numSequences : sequencesPerPrefill(numSequences);
      tell("prefill", numTogether * chunk, await measureTogether(runner, numTogether, chunk));
    }
  });
}

/** Milliseconds of a pass that reads as many tokens of each sequence, the fastest of a few. */
async function measureTogether(runner: ModelRunner, numSequences: number, chunk: number): Promise<number> {
  const sequences = Array.from({ length: numSequences }, (_, b) => b);
  const input = {
    firstSlot: 0,
    lengths: sequences.map(() => chunk),
    tokenIds: Array.from({ length: numSequences * chunk }, (_, i) => 3 + (i % 250)),
    logitRows: sequences.map((b) => (b + 1) * chunk - 1),
    temperatures: sequences.map(() => 1),
  };
  const passMs: number[] = [];
  for (let i = 0; i < 5; i++) {
    const startMs = performance.now();
    await runner.run(input);
    passMs.push(performance.now() - startMs);
  }
  return Math.min(...passMs);
}

async function measureFlatness(setup: Setup, report: Report): Promise<void> {
  const name = "mamba-130m";
  const positions = setup.isTiny ? [10, 40] : [1024, 4096, 16_384, 65_536];
  const modelDir = await checkpointOf(setup, name, setup.isTiny ? TINY : GPU_SHAPES[name]);
  await withRunner(setup, { modelDir, precision: SERVED, numSlots: 1 }, report, async (runner) => {
    let position = 0;
    for (const numTokens of positions) {
      await readPrompt(runner, numTokens - position, Math.min(2048, numTokens));
      position = numTokens;
      const stepMs = await measureDecode(runner, { numSequences: 1, numSteps: setup.isTiny ? 2 : 100 });
      report({ kind: "flatness", shape: name, numTokens, stepMs });
    }
  });
}

/**
 * What runs under compute-sanitizer, which makes everything slow: all our own operators, in few and
 * small steps.
 */
export async function exercise(setup: Setup, report: Report): Promise<void> {
  for (const [name, shape] of Object.entries(EXERCISES)) {
    const modelDir = await checkpointOf(setup, name, shape);
    await withRunner(setup, { modelDir, precision: "f32", numSlots: 3 }, report, async (runner) => {
      const lengths = runner.manifest.ragged ? [40, 0, 1] : [40, 40, 40];
      const tokenIds = lengths.flatMap((length) => Array.from({ length }, (_, i) => i));
      await runner.run({ firstSlot: 0, lengths, tokenIds, logitRows: [tokenIds.length - 1], temperatures: [1] });
      await measureDecode(runner, { numSequences: 2, numSteps: 1 });
      await measureDecode(runner, { numSequences: 2, numSteps: 1, firstSlot: 1 });
      await runner.writeSlot(1, await runner.readSlot(0));
    });
  }
}

interface Opened {
  readonly modelDir: string;
  readonly precision: Precision;
  readonly numSlots: number;
}

async function withRunner(
  { ort, kernels: libraryPath, nvcc, cacheDir }: Setup,
  { modelDir, precision, numSlots }: Opened,
  report: Report,
  use: (runner: NativeRunner) => Promise<void>,
): Promise<void> {
  const build = { sourceDir: "kernels", cacheDir, cc: nvcc, target: "cuda" } as const;
  const kernels = await openKernels({ ...build, libraryPath });
  const { dir: artifactDir } = await ensureArtifact({ modelDir, precision, lowering: "cuda", cacheDir });
  const runner = await NativeRunner.open({
    ...{ artifactDir, numSlots, numThreads: 1, device: "cuda", kernels, ortLibrary: ort },
    note: (text) => report({ kind: "note", text }),
  });
  try {
    await use(runner);
  } finally {
    await runner.close();
  }
}

/** Random weights, made once. */
async function checkpointOf({ cacheDir, isTiny }: Setup, name: string, shape: RandomShape): Promise<string> {
  const modelDir = join(cacheDir, "checkpoints", isTiny ? `tiny-${name}` : name);
  if (!existsSync(modelDir)) {
    const partial = `${modelDir}.${process.pid}`;
    await writeRandomCheckpoint({ outDir: partial, shape, seed: 1, dtype: "F16" });
    await rm(modelDir, { recursive: true, force: true });
    await rename(partial, modelDir);
  }
  return modelDir;
}
