/**
 * A checkpoint folder: `config.json` and weights, opened and checked against each other before anything is read
 * from them. The front door of everything that needs weights: compiler, oracle, inspection.
 */
import { readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { type ConfigJson, parsePythonJson, readTokenIds } from "./config-json.ts";
import { FLOAT_DTYPES, isFloatDtype } from "./dtypes.ts";
import type { Family, ModelDescription } from "./families/family.ts";
import { type Architecture, familyOf, knownModelTypes } from "./families/registry.ts";
import { openWeights, type WeightOptions } from "./open-weights.ts";
import { numElements } from "./state.ts";
import { findWeightFiles } from "./weight-files.ts";
import { invalidCheckpoint, type WeightTensor } from "./weights.ts";

export interface Checkpoint extends ModelDescription<Architecture> {
  readonly name: string;
  readonly family: Family<Architecture>;
  readonly numParameters: number;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  /** A tensor that the family expects, hence present. */
  tensor(name: string): WeightTensor;
  /** Closes the files; tensors can no longer be read. */
  close(): void;
}

const CONFIG_FILE = "config.json";

/** @throws `invalid_checkpoint` for anything missing, malformed, or in contradiction to the config. */
export function openCheckpoint(modelDir: string, options: WeightOptions = {}): Checkpoint {
  const given = readJson(join(modelDir, CONFIG_FILE));
  const family = familyOf(given);
  if (family === undefined) {
    const type = given.model_type === undefined ? "missing" : JSON.stringify(given.model_type);
    throw invalidCheckpoint(
      `${CONFIG_FILE}: model_type is ${type}, which is not supported; these are: ${knownModelTypes().join(", ")}`,
    );
  }
  const json = { ...family.defaults, ...given };
  const weights = openWeights(modelDir, options);
  try {
    const tensors = byFullName(weights.tensors, family.prefix);
    const model = family.describe(json, tensors);
    checkTensors(model, tensors);
    const { vocabSize } = model.sizes;
    return {
      name: nameOf(modelDir),
      family,
      ...model,
      numParameters: model.tensors.reduce((sum, { shape }) => sum + numElements(shape), 0),
      bosTokenId: readTokenIds(json, "bos_token_id", vocabSize)[0] ?? null,
      eosTokenIds: readTokenIds(json, "eos_token_id", vocabSize),
      tensor(name) {
        const tensor = tensors.get(name);
        if (tensor === undefined) throw invalidCheckpoint(`tensor ${name} is missing`);
        return tensor;
      },
      close: weights.close,
    };
  } catch (error) {
    weights.close();
    throw error;
  }
}

/** The files, relative to the folder, whose bytes make the model: config first, then weights. */
export function sourceFiles(modelDir: string): string[] {
  return [CONFIG_FILE, ...findWeightFiles(modelDir).files];
}

/** The folder's name; of a snapshot in Hugging Face's cache, which is named after its commit, the repository's. */
function nameOf(modelDir: string): string {
  const folder = resolve(modelDir);
  const [, repository] = /[\\/]models--([^\\/]+)[\\/]snapshots[\\/][^\\/]+$/.exec(folder) ?? [];
  return repository?.replaceAll("--", "/") ?? basename(folder);
}

function checkTensors(
  { tensors: expected, ignored = [] }: ModelDescription<Architecture>,
  tensors: ReadonlyMap<string, WeightTensor>,
): void {
  for (const { name, shape } of expected) {
    const tensor = tensors.get(name);
    if (tensor === undefined)
      throw invalidCheckpoint(`tensor ${name} is missing; config.json asks for shape [${shape}]`);
    if (tensor.shape.length !== shape.length || shape.some((size, axis) => tensor.shape[axis] !== size)) {
      throw invalidCheckpoint(`tensor ${name} has shape [${tensor.shape}]; config.json asks for [${shape}]`);
    }
    if (!isFloatDtype(tensor.dtype)) {
      throw invalidCheckpoint(`tensor ${name} is ${tensor.dtype}, not one of ${FLOAT_DTYPES.join(", ")}`);
    }
  }
  const names = new Set([...expected.map(({ name }) => name), ...ignored]);
  for (const [fullName, { name, shape }] of tensors) {
    if (!names.has(fullName)) throw invalidCheckpoint(`tensor ${name} of shape [${shape}] has no place in this model`);
  }
}

/** transformers' `MambaModel` and its like save their tensors without the name that they have in the model with a head. */
function byFullName(tensors: readonly WeightTensor[], prefix: string): ReadonlyMap<string, WeightTensor> {
  const isHeadless = !tensors.some(({ name }) => name.startsWith(prefix));
  return new Map(tensors.map((tensor) => [isHeadless ? prefix + tensor.name : tensor.name, tensor]));
}

function readJson(path: string): ConfigJson {
  let value: unknown;
  try {
    value = parsePythonJson(readFileSync(path, "utf8"));
  } catch (cause) {
    throw invalidCheckpoint(`cannot read ${path}: ${cause instanceof Error ? cause.message : cause}`, cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalidCheckpoint(`${path} is not a JSON object`);
  }
  return value as ConfigJson;
}
