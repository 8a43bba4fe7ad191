/**
 * Reads an artifact's `manifest.json` and nothing else: what the compiler wrote, checked to be of
 * this version and shape. The hashes in it are checked by `compiler/artifact-cache.ts`.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";
import { type Manifest, PRECISIONS } from "./artifact.ts";
import { STATE_DTYPES } from "./state.ts";

export const MANIFEST_FILE = "manifest.json";

/** Of the manifest and of the graph's contract in `artifact.ts`. */
export const FORMAT_VERSION = 2;

/** What may be relied on of an artifact's numbers: docs/compiler.md, "Precision". */
export type NumericMode = "exact" | "batch-invariant" | "fast";

export function numericMode(
  manifest: Pick<Manifest, "precision" | "ragged" | "device"> & Partial<Pick<Manifest, "state">>,
): NumericMode {
  const { precision, ragged, device } = manifest;
  // What is cut into more passes is rounded more often.
  if (hasHalfStates(manifest)) return "fast";
  if (precision === "f32") return "exact";
  // On CUDA the matrices are multiplied by ONNX Runtime; on a CPU what looks along time is, where
  // it has no kernel.
  return ragged && device !== "cuda" ? "batch-invariant" : "fast";
}

export function hasHalfStates({ state = [] }: Partial<Pick<Manifest, "state">>): boolean {
  return state.some(({ dtype }) => dtype === "f16");
}

const count = z.int().nonnegative();
const sha256 = z.string().regex(/^[0-9a-f]{64}$/);
/** A plain name: a manifest must not reach out of its folder. */
const fileName = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]*$/);

const manifestSchema = z.object({
  formatVersion: z.literal(FORMAT_VERSION),
  compilerVersion: z.string(),
  modelHash: sha256,
  name: z.string(),
  family: z.string(),
  precision: z.enum(PRECISIONS),
  kernels: z.int().positive().optional(),
  device: z.enum(["cpu", "cuda"]).optional(),
  sizes: z.object({ vocabSize: count, hiddenSize: count, numLayers: count, denseLayers: count }),
  numParameters: count,
  bosTokenId: count.nullable(),
  eosTokenIds: z.array(count),
  state: z.array(z.object({ name: z.string(), shape: z.array(count), dtype: z.enum(STATE_DTYPES).default("f32") })),
  ragged: z.boolean().optional(),
  maxPassSteps: z.int().positive().optional(),
  graph: fileName,
  decodeGraph: fileName,
  files: z.array(z.object({ name: fileName, bytes: count, sha256 })),
});

/** @throws `invalid_artifact` if there is none, or it is not a manifest of this version. */
export async function readManifest(artifactDir: string): Promise<Manifest> {
  const path = join(artifactDir, MANIFEST_FILE);
  let json: unknown;
  try {
    json = JSON.parse(await readFile(path, "utf8"));
  } catch (cause) {
    throw new DenseMambaError("invalid_artifact", `cannot read ${path}`, { cause });
  }
  const parsed = manifestSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const { path: field, message } = parsed.error.issues[0]!;
  throw new DenseMambaError("invalid_artifact", `${path}: ${field.join(".")}: ${message}`);
}
