/**
 * A checkpoint: `config.json` and weights, opened and checked against each other before anything is
 * read from them. The front door of everything that needs weights: compiler, oracle, inspection.
 */
import { existsSync, readFileSync } from "node:fs";
import { basename, extname, join, resolve } from "node:path";
import { type ConfigJson, parsePythonJson, readTokenIds } from "./config-json.ts";
import { FLOAT_DTYPES, isFloatDtype } from "./dtypes.ts";
import type { Family, ModelDescription } from "./families/family.ts";
import type { Layout } from "./families/layout.ts";
import { type Architecture, families, familyOf, knownModelTypes } from "./families/registry.ts";
import { attentionIn, earlierRwkvIn } from "./families/unserved.ts";
import { openWeights, type WeightOptions } from "./open-weights.ts";
import { numElements } from "./state.ts";
import { findWeightFiles, modelFolder } from "./weight-files.ts";
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

/** Mistral's releases have the second. */
const CONFIG_FILES = ["config.json", "params.json"];

/**
 * @param model its folder, or the file that holds its weights
 * @throws `invalid_checkpoint` for anything missing, malformed, or in contradiction to the config.
 */
export function openCheckpoint(model: string, options: WeightOptions = {}): Checkpoint {
  const configFile = findConfig(model);
  const given = configFile === undefined ? undefined : readJson(join(modelFolder(model), configFile));
  const known = given === undefined ? undefined : familyOfConfig(given);
  const weights = openWeights(model, options);
  try {
    const family = known ?? familyOfTensors(weights.tensors, model);
    const json = { ...family.defaults, ...given };
    const layout = family.layout(weights.tensors);
    const tensors = byFamilyName(weights.tensors, layout);
    const description = family.describe(json, tensors);
    checkTensors(description, tensors, {
      layout,
      asker: configFile === undefined ? "the other tensors ask" : `${configFile} asks`,
    });
    const { vocabSize } = description.sizes;
    return {
      name: nameOf(model),
      family,
      ...description,
      numParameters: description.tensors.reduce((sum, { shape }) => sum + numElements(shape), 0),
      bosTokenId: readTokenIds(json, "bos_token_id", vocabSize)[0] ?? null,
      eosTokenIds: readTokenIds(json, "eos_token_id", vocabSize),
      tensor(name) {
        const tensor = tensors.get(name);
        if (tensor === undefined) throw invalidCheckpoint(`tensor ${layout.fileName(name)} is missing`);
        return tensor;
      },
      close: weights.close,
    };
  } catch (error) {
    weights.close();
    throw error;
  }
}

/**
 * The files, relative to the model's folder, whose bytes make the model: config first, if there is
 * one, then weights.
 */
export function sourceFiles(model: string): string[] {
  return [findConfig(model) ?? [], findWeightFiles(model).files].flat();
}

function findConfig(model: string): string | undefined {
  return CONFIG_FILES.find((name) => existsSync(join(modelFolder(model), name)));
}

/** @throws `invalid_checkpoint` naming what the model is, if we know it and do not serve it */
function familyOfConfig(json: ConfigJson): Family<Architecture> {
  const served = `these are: ${knownModelTypes().join(", ")}`;
  const attention = attentionIn(json);
  if (attention !== undefined) {
    throw invalidCheckpoint(
      `config.json: ${attention}: a hybrid with attention layers, whose memory grows with the text; only models whose layers are all recurrent are supported, ${served}`,
    );
  }
  const family = familyOf(json);
  if (family !== undefined) return family;
  const type = json.model_type === undefined ? "missing" : JSON.stringify(json.model_type);
  const generation = earlierRwkvIn(json);
  const explained = generation === undefined ? "" : `; ${type} is ${generation}, and of RWKV only RWKV-7 is supported`;
  throw invalidCheckpoint(`config.json: model_type is ${type}, which is not supported; ${served}${explained}`);
}

/** Of weights without a config. @throws `invalid_checkpoint` if they do not tell what they are */
function familyOfTensors(tensors: readonly WeightTensor[], model: string): Family<Architecture> {
  const names = tensors.map(({ name }) => name);
  const family = families.find(({ recognizesTensors }) => recognizesTensors?.(names));
  if (family !== undefined) return family;
  throw invalidCheckpoint(
    `cannot read ${join(modelFolder(model), CONFIG_FILES[0]!)}: ENOENT, no such file; without it only the weights of an RWKV-7 are understood`,
  );
}

/**
 * The folder's name; of a file, its own without the extension; of a snapshot in Hugging Face's
 * cache, which is named after its commit, the repository's.
 */
export function nameOf(model: string): string {
  const folder = resolve(modelFolder(model));
  if (folder !== resolve(model)) return basename(model, extname(model));
  const [, repository] = /[\\/]models--([^\\/]+)[\\/]snapshots[\\/][^\\/]+$/.exec(folder) ?? [];
  return repository?.replaceAll("--", "/") ?? basename(folder);
}

/** @param asker with its verb: what the expected shapes follow from */
function checkTensors(
  { tensors: expected, ignored = [] }: ModelDescription<Architecture>,
  tensors: ReadonlyMap<string, WeightTensor>,
  { layout, asker }: { readonly layout: Layout; readonly asker: string },
): void {
  for (const { name, shape } of expected) {
    const tensor = tensors.get(name);
    if (tensor === undefined) {
      throw invalidCheckpoint(`tensor ${layout.fileName(name)} is missing; ${asker} for shape [${shape}]`);
    }
    if (tensor.shape.length !== shape.length || shape.some((size, axis) => tensor.shape[axis] !== size)) {
      throw invalidCheckpoint(`tensor ${tensor.name} has shape [${tensor.shape}]; ${asker} for [${shape}]`);
    }
    if (!isFloatDtype(tensor.dtype)) {
      throw invalidCheckpoint(`tensor ${tensor.name} is ${tensor.dtype}, not one of ${FLOAT_DTYPES.join(", ")}`);
    }
  }
  const names = new Set([...expected.map(({ name }) => name), ...ignored]);
  for (const [familyName, { name, shape }] of tensors) {
    if (names.has(familyName)) continue;
    throw invalidCheckpoint(`tensor ${name} of shape [${shape}] has no place in this model`);
  }
}

/** @throws `invalid_checkpoint` if two tensors of the file are one of the family's */
function byFamilyName(tensors: readonly WeightTensor[], layout: Layout): ReadonlyMap<string, WeightTensor> {
  const named = new Map<string, WeightTensor>();
  for (const tensor of tensors) {
    const name = layout.familyName(tensor.name);
    const other = named.get(name);
    if (other !== undefined)
      throw invalidCheckpoint(`tensors ${other.name} and ${tensor.name} are the same of the model`);
    named.set(name, layout.adapt?.(tensor, name) ?? tensor);
  }
  return named;
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
