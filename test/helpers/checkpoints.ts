/**
 * Small checkpoints for tests: random ones of a given shape, edited copies of one, and hand-made
 * safetensors files.
 */
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RandomShape, writeRandomCheckpoint } from "../../src/compiler/random-checkpoint.ts";

/**
 * Two layers and a bit: links of one and of two layers, sizes that differ from one another. Fit for
 * int8.
 */
export const TINY_SHAPE = {
  hiddenSize: 32,
  numLayers: 4,
  vocabSize: 80,
  denseLayers: 2,
  stateSize: 8,
  timeStepRank: 4,
  gateWidth: 16,
} as const satisfies RandomShape;

/**
 * The same for a RetNet: two heads whose sizes differ from one another's and from the hidden size.
 * Fit for int8.
 */
export const TINY_RETNET = {
  kind: "retnet",
  hiddenSize: 32,
  numLayers: 4,
  vocabSize: 80,
  denseLayers: 2,
  numHeads: 2,
  keyDim: 24,
  valueFactor: 2,
  keyGateWidth: 16,
  valueGateWidth: 4,
} as const satisfies RandomShape;

/** A Mamba-2 with two groups of heads. */
export const TINY_MAMBA2 = {
  kind: "mamba2",
  hiddenSize: 32,
  numLayers: 3,
  vocabSize: 80,
  denseLayers: 0,
  headDim: 8,
  stateSize: 16,
  numGroups: 2,
} as const satisfies RandomShape;

export const TINY_RWKV7 = {
  kind: "rwkv7",
  hiddenSize: 32,
  numLayers: 3,
  vocabSize: 80,
  denseLayers: 0,
  headDim: 16,
  ranks: { w: 8, a: 8, v: 4, g: 8 },
} as const satisfies RandomShape;

/** A new folder under the system's temporary one. The caller removes it. */
export function temporaryFolder(prefix = "densemamba-test-"): string {
  return mkdtempSync(join(tmpdir(), prefix));
}

/** A random checkpoint in a new folder, which the caller removes. */
export async function randomCheckpoint(shape: RandomShape = TINY_SHAPE, seed = 1): Promise<string> {
  const outDir = temporaryFolder();
  await writeRandomCheckpoint({ outDir, shape, seed });
  return outDir;
}

export interface RawTensor {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Parses a file that is known to be sound. */
export function readRawTensors(modelDir: string, fileName = "model.safetensors"): Map<string, RawTensor> {
  const file = readFileSync(join(modelDir, fileName));
  const dataStart = 8 + Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString("utf8", 8, dataStart)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header)
      .filter(([name]) => name !== "__metadata__")
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [begin, end],
          },
        ]) => [name, { dtype, shape, bytes: file.subarray(dataStart + begin, dataStart + end) }],
      ),
  );
}

export function writeRawTensors(modelDir: string, tensors: ReadonlyMap<string, RawTensor>): void {
  let offset = 0;
  const header = Object.fromEntries(
    [...tensors].map(([name, { dtype, shape, bytes }]) => {
      const begin = offset;
      offset += bytes.length;
      return [name, { dtype, shape, data_offsets: [begin, offset] }];
    }),
  );
  writeSafetensors(modelDir, JSON.stringify(header), Buffer.concat([...tensors.values()].map(({ bytes }) => bytes)));
}

/** A file with any header, sound or not; `headerLength` may lie. */
export function writeSafetensors(modelDir: string, header: string, data: Uint8Array, headerLength?: bigint): void {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(headerLength ?? BigInt(Buffer.byteLength(header)));
  mkdirSync(modelDir, { recursive: true });
  writeFileSync(join(modelDir, "model.safetensors"), Buffer.concat([length, Buffer.from(header), data]));
}

/** Rewrites `config.json` with some keys changed; a key set to undefined goes. */
export function editConfig(modelDir: string, changes: Record<string, unknown>): void {
  const path = join(modelDir, "config.json");
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...changes }));
}
