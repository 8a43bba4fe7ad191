/**
 * Graphs with our own operators in ONNX Runtime: that they run, with every instruction set that
 * this CPU has, fail with their own words, and are refused where the operators are not there.
 * EmbedRows stands for all.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { KERNELS_VERSION, type Manifest } from "../../src/model/artifact.ts";
import { encodeModel } from "../../src/onnx/encode.ts";
import { ExternalData } from "../../src/onnx/external-data.ts";
import { Graph } from "../../src/onnx/graph.ts";
import { f32Tensor } from "../../src/onnx/tensor.ts";
import { instructionSets } from "../../src/runtime/native/kernel-build.ts";
import { openKernels as open } from "../../src/runtime/native/kernel-library.ts";
import { type Handle, OrtApi } from "../../src/runtime/native/ort-api.ts";
import { NameArray, PointerArray } from "../../src/runtime/native/pointer-array.ts";
import { type KernelLibrary, openRunner } from "../../src/runtime/open.ts";
import { CompiledTiny } from "../helpers/compiled-tiny.ts";

const NUM_ROWS = 50;
const NUM_COLUMNS = 8;
const BLOCK = 4;
const LANES = 16;

const libraryPath = process.env.DENSEMAMBA_KERNEL_LIBRARY;

const openKernels = (instructionSet?: string) =>
  open({ libraryPath, sourceDir: "", cacheDir: "", cc: "", target: "all", ...(instructionSet && { instructionSet }) });

/** By the layout's definition: row 16t + lane, column 4q + j is code [t, q, lane, j]. */
const codes = Uint8Array.from({ length: 64 * NUM_COLUMNS }, (_, i) => (i * 37 + 11) % 256);
const scales = Float32Array.from({ length: (64 * NUM_COLUMNS) / BLOCK }, (_, i) => ((i * 29) % 31) / 32 - 0.4);
function rowOf(row: number): number[] {
  const tile = Math.floor(row / LANES);
  const lane = row % LANES;
  return Array.from({ length: NUM_COLUMNS }, (_, column) => {
    const code = codes[((tile * (NUM_COLUMNS / 4) + Math.floor(column / 4)) * LANES + lane) * 4 + (column % 4)]!;
    const scale = scales[(tile * (NUM_COLUMNS / BLOCK) + Math.floor(column / BLOCK)) * LANES + lane]!;
    return Math.fround(scale * ((code << 24) >> 24));
  });
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-kernels-graph-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function writeGraph(name: string, attributes: Record<string, number> = {}): Promise<string> {
  const graph = new Graph(name);
  const ids = graph.input("ids", "i64", ["B", "T"]);
  const tables = [
    graph.initializer("codes", { dtype: "u8", shape: [codes.length], chunks: () => [codes] }),
    graph.initializer("scales", f32Tensor([scales.length], scales)),
  ];
  const all = { rows: NUM_ROWS, columns: NUM_COLUMNS, bits: 8, block: BLOCK, ...attributes };
  const given = Object.fromEntries(Object.entries(all).filter(([, value]) => value >= 0));
  graph.output("rows", graph.op("densemamba.EmbedRows", [...tables, ids], given), "f32", ["B", "T", NUM_COLUMNS]);
  const model = await encodeModel(graph, {
    opsets: [
      { domain: "", version: 21 },
      { domain: "densemamba", version: 1 },
    ],
    producer: { name: "test", version: "1" },
    external: new ExternalData("unused", () => Promise.reject(new Error("the tensors are small"))),
  });
  const file = path.join(folder, `${name}.onnx`);
  await writeFile(file, model);
  return file;
}

/** A session over one graph, with everything it needs. */
class Rows {
  readonly #api: OrtApi;
  readonly #owned: Handle[] = [];
  readonly #session: Handle;
  readonly #memoryInfo: Handle;
  readonly #runOptions: Handle;

  static async open(file: string, kernels: KernelLibrary | undefined): Promise<Rows> {
    const api = new OrtApi({ checked: true });
    const env = api.createEnv();
    try {
      const options = api.createSessionOptions({ numThreads: 2, cuda: undefined, kernels, config: {} });
      const session = await api.createSession(env, file, options).finally(() => api.release(options));
      return new Rows(api, env, session);
    } catch (error) {
      api.release(env);
      api.assertNothingLive();
      throw error;
    }
  }

  private constructor(api: OrtApi, env: Handle, session: Handle) {
    this.#api = api;
    this.#session = session;
    this.#memoryInfo = api.createCpuMemoryInfo();
    this.#runOptions = api.createRunOptions();
    this.#owned.push(session, this.#memoryInfo, this.#runOptions, env);
  }

  async get(ids: readonly number[]): Promise<number[][]> {
    const input = new BigInt64Array(new ArrayBuffer(ids.length * 8));
    input.set(ids.map(BigInt));
    const output = new Float32Array(new ArrayBuffer(ids.length * NUM_COLUMNS * 4));
    const values = [
      this.#api.createTensor(this.#memoryInfo, "int64", input, [1, ids.length]),
      this.#api.createTensor(this.#memoryInfo, "float32", output, [1, ids.length, NUM_COLUMNS]),
    ];
    const inputs = new PointerArray(1);
    const outputs = new PointerArray(1);
    inputs.values[0] = values[0]!.address;
    outputs.values[0] = values[1]!.address;
    const names = [new NameArray(["ids"]), new NameArray(["rows"])] as const;
    const held: unknown[] = [input, output, inputs, outputs, names];
    try {
      await this.#api.run({
        session: this.#session,
        runOptions: this.#runOptions,
        inputNames: names[0],
        inputs,
        outputNames: names[1],
        outputs,
        firstOutput: 0,
      });
    } finally {
      for (const value of values) this.#api.release(value);
      held.length = 0; // until here, lest what the run reads and writes be collected under it
    }
    return ids.map((_, i) => [...output.subarray(i * NUM_COLUMNS, (i + 1) * NUM_COLUMNS)]);
  }

  close(): void {
    for (const handle of this.#owned) this.#api.release(handle);
    this.#api.assertNothingLive();
  }
}

describe.skipIf(libraryPath === undefined)("a graph with our own operators", () => {
  it.for(Object.keys(instructionSets()))("runs with the instruction set %s", async (set, { skip }) => {
    const known = Object.keys(instructionSets());
    const { instructionSet: best } = await openKernels();
    if (known.indexOf(set) > known.indexOf(best)) skip(`this CPU has ${best} at best`);
    if (set !== best && !process.env.CI) skip("CI builds the library for all of them");
    const rows = await Rows.open(await writeGraph("rows"), await openKernels(set));
    const ids = [0, 49, 16, 15, 49];
    expect(await rows.get(ids)).toEqual(ids.map(rowOf));
    rows.close();
  });

  it("fails in the operator's own words, and runs on", async () => {
    const rows = await Rows.open(await writeGraph("failing"), await openKernels());
    await expect(rows.get([3, 50])).rejects.toMatchObject({
      code: "runtime_fault",
      message: expect.stringContaining("EmbedRows: id 50 is not in 0..49"),
    });
    expect(await rows.get([3])).toEqual([rowOf(3)]);
    rows.close();
  });

  it("does not open with attributes that are wrong or missing", async () => {
    const kernels = await openKernels();
    const attempt = async (attributes: Record<string, number>) =>
      Rows.open(await writeGraph("wrong", attributes), kernels);
    await expect(attempt({ bits: 5 })).rejects.toThrow("bits must be 8, not 5");
    await expect(attempt({ block: -1 })).rejects.toThrow("the attribute block is missing");
  });

  it("does not open where the library has not been loaded", async () => {
    await expect(Rows.open(await writeGraph("alone"), undefined)).rejects.toMatchObject({
      code: "invalid_artifact",
      message: expect.stringContaining("densemamba"),
    });
  });

  it("does not open with an instruction set that this CPU lacks", async () => {
    const kernels = await openKernels("avx10000");
    await expect(Rows.open(await writeGraph("future"), kernels)).rejects.toThrow(
      "not built for, or this CPU lacks, the instruction set",
    );
  });

  it("gives several sessions at once each its own rows", async () => {
    const kernels = await openKernels();
    const file = await writeGraph("shared");
    const sessions = await Promise.all([1, 2, 3, 4].map(() => Rows.open(file, kernels)));
    for (let round = 0; round < 20; round++) {
      const wanted = sessions.map((_, i) => [(round + 7 * i) % NUM_ROWS, i]);
      const got = await Promise.all(sessions.map((session, i) => session.get(wanted[i]!)));
      expect(got).toEqual(wanted.map((ids) => ids.map(rowOf)));
    }
    for (const session of sessions) session.close();
  });
});

describe("an artifact that was compiled for the kernels", () => {
  let artifact: CompiledTiny;
  beforeAll(async () => {
    artifact = await CompiledTiny.create();
  });
  afterAll(() => artifact.remove());

  const library = (version: number): KernelLibrary => ({
    path: "/kernels.so",
    version,
    instructionSet: "baseline",
    device: "cpu",
    findMissingCode: undefined,
    register: () => null,
  });
  const needing = (version: number) =>
    artifact.withManifest(`needs-${version}`, (manifest): Manifest => ({ ...manifest, kernels: version }));
  const openWith = (
    kind: "native" | "portable",
    artifactDir: string,
    kernels?: KernelLibrary,
    device: "cpu" | "cuda" = "cpu",
  ) => openRunner(kind, { artifactDir, numSlots: 1, numThreads: 1, device, kernels });

  it("says so of its runner", async () => {
    const runner = await openWith("native", await needing(KERNELS_VERSION), library(KERNELS_VERSION));
    expect(runner.description).toMatch(/, 1 thread, kernels baseline(,|$)/);
    await runner.close();
  });

  it.each([
    ["without them", "native", undefined, "they are not loaded"],
    ["with those of another version", "native", KERNELS_VERSION + 1, `/kernels.so has version ${KERNELS_VERSION + 1}`],
    ["in the portable runner", "portable", KERNELS_VERSION, "the portable runner cannot load them"],
  ] as const)("is refused %s", async (_, kind, version, reason) => {
    const opening = openWith(
      kind,
      await needing(KERNELS_VERSION),
      version === undefined ? undefined : library(version),
    );
    await expect(opening).rejects.toMatchObject({
      code: "invalid_artifact",
      message: expect.stringContaining(
        `was compiled for the kernels, version ${KERNELS_VERSION}, and ${reason}; compile it with --kernels off`,
      ),
    });
  });

  it("is not for CUDA, so that another device is tried", async () => {
    const opening = openWith("native", await needing(KERNELS_VERSION), library(KERNELS_VERSION), "cuda");
    await expect(opening).rejects.toMatchObject({ code: "device_unavailable" });
  });
});
