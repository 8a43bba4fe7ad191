/**
 * A checkpoint folder: `config.json` and safetensors, opened and checked against each other before anything is read
 * from them. The front door of everything that needs weights: compiler, oracle, inspection.
 */
import { readFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { readTokenIds } from "./config-json.ts";
import type { ConfigJson, ExpectedTensor, Family, ModelDescription } from "./families/family.ts";
import { familyOf, knownModelTypes } from "./families/registry.ts";
import { openSafetensors, type SafetensorsFile } from "./safetensors.ts";
import { numElements } from "./state.ts";
import { invalidCheckpoint, type WeightTensor } from "./weights.ts";

export interface Checkpoint extends ModelDescription {
  readonly name: string;
  readonly family: Family;
  readonly numParameters: number;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  /** A tensor that the family expects, hence present. */
  tensor(name: string): WeightTensor;
  /** Closes the files; tensors can no longer be read. */
  close(): void;
}

const CONFIG_FILE = "config.json";
const WEIGHTS_FILE = "model.safetensors";
const INDEX_FILE = "model.safetensors.index.json";

/** @throws `invalid_checkpoint` for anything missing, malformed, or in contradiction to the config. */
export function openCheckpoint(modelDir: string): Checkpoint {
  const json = readJson(join(modelDir, CONFIG_FILE));
  const family = familyOf(json.model_type);
  if (family === undefined) {
    throw invalidCheckpoint(
      `${CONFIG_FILE}: model_type is ${JSON.stringify(json.model_type)}, not one of ${knownModelTypes().join(", ")}`,
    );
  }
  const files: SafetensorsFile[] = [];
  const close = () => {
    for (const file of files.splice(0)) file.close();
  };
  try {
    for (const name of weightFiles(modelDir)) files.push(openSafetensors(join(modelDir, name)));
    const tensors = new Map<string, WeightTensor>();
    for (const tensor of files.flatMap((file) => file.tensors)) {
      if (tensors.has(tensor.name)) throw invalidCheckpoint(`tensor ${tensor.name} stands in two files`);
      tensors.set(tensor.name, tensor);
    }
    const model = family.describe(json, tensors);
    checkTensors(model.tensors, tensors);
    const { vocabSize } = model.sizes;
    return {
      name: basename(resolve(modelDir)),
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
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** The files, relative to the folder, whose bytes make the model: config first, then weights. */
export function sourceFiles(modelDir: string): string[] {
  return [CONFIG_FILE, ...weightFiles(modelDir)];
}

/** One file, or the shards that an index names. */
function weightFiles(modelDir: string): string[] {
  let index: ConfigJson;
  try {
    index = readJson(join(modelDir, INDEX_FILE));
  } catch {
    return [WEIGHTS_FILE];
  }
  const map = index.weight_map;
  if (typeof map !== "object" || map === null) throw invalidCheckpoint(`${INDEX_FILE}: weight_map is missing`);
  const names = [...new Set(Object.values(map))].sort();
  for (const name of names) {
    if (typeof name !== "string" || basename(name) !== name) {
      throw invalidCheckpoint(`${INDEX_FILE}: ${JSON.stringify(name)} is not the name of a file in this folder`);
    }
  }
  return names as string[];
}

function checkTensors(expected: readonly ExpectedTensor[], tensors: ReadonlyMap<string, WeightTensor>): void {
  for (const { name, shape } of expected) {
    const tensor = tensors.get(name);
    if (tensor === undefined)
      throw invalidCheckpoint(`tensor ${name} is missing; config.json asks for shape [${shape}]`);
    if (tensor.shape.length !== shape.length || shape.some((size, axis) => tensor.shape[axis] !== size)) {
      throw invalidCheckpoint(`tensor ${name} has shape [${tensor.shape}]; config.json asks for [${shape}]`);
    }
  }
  const names = new Set(expected.map(({ name }) => name));
  for (const { name, shape } of tensors.values()) {
    if (!names.has(name)) throw invalidCheckpoint(`tensor ${name} of shape [${shape}] has no place in this model`);
  }
}

function readJson(path: string): ConfigJson {
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw invalidCheckpoint(`cannot read ${path}: ${cause instanceof Error ? cause.message : cause}`, cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw invalidCheckpoint(`${path} is not a JSON object`);
  }
  return value as ConfigJson;
}
