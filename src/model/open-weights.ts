/**
 * A folder's weights as one list, whatever format and however many files they lie in, with index
 * and files held against each other. Numbers that are not finite are found as they are read: no
 * pass over the weights is made for it.
 */
import { join } from "node:path";
import { openSafetensors } from "./safetensors.ts";
import { openTorchFile } from "./torch-file.ts";
import { findWeightFiles, type WeightFiles } from "./weight-files.ts";
import { invalidCheckpoint, type Weights, type WeightTensor } from "./weights.ts";

export interface WeightOptions {
  /** Let weights that are NaN or infinite pass. Otherwise reading one is `invalid_checkpoint`. */
  readonly allowNonFinite?: boolean;
}

/** @throws `invalid_checkpoint` for anything missing, malformed, or in contradiction. */
export function openWeights(model: string, { allowNonFinite = false }: WeightOptions = {}): Weights {
  const layout = findWeightFiles(model);
  const open = layout.format === "safetensors" ? openSafetensors : openTorchFile;
  const opened: Weights[] = [];
  const close = () => {
    for (const weights of opened.splice(0)) weights.close();
  };
  try {
    const tensors = layout.files.flatMap((file) => {
      const weights = open(join(layout.folder, file));
      opened.push(weights);
      return weights.tensors.map((tensor) => ({ tensor, file }));
    });
    checkPlaces(tensors, layout);
    return { tensors: tensors.map(({ tensor }) => (allowNonFinite ? tensor : finiteOnly(tensor))), close };
  } catch (error) {
    close();
    throw error;
  }
}

/** No tensor in two files, and every one in the shard where the index says that it is. */
function checkPlaces(
  tensors: readonly { readonly tensor: WeightTensor; readonly file: string }[],
  { index }: WeightFiles,
): void {
  const files = new Map<string, string>();
  for (const { tensor, file } of tensors) {
    const { name } = tensor;
    const other = files.get(name);
    if (other !== undefined) throw invalidCheckpoint(`tensor ${name} stands in two files, ${other} and ${file}`);
    files.set(name, file);
    if (index === undefined) continue;
    const listed = index.shardOf.get(name);
    if (listed === undefined) throw invalidCheckpoint(`tensor ${name} of ${file} is missing from ${index.file}`);
    if (listed !== file) throw invalidCheckpoint(`tensor ${name} is in ${file}; ${index.file} says ${listed}`);
  }
  for (const [name, shard] of index?.shardOf ?? []) {
    if (!files.has(name)) throw invalidCheckpoint(`tensor ${name} is not in ${shard}, where ${index?.file} says it is`);
  }
}

function finiteOnly(tensor: WeightTensor): WeightTensor {
  return {
    name: tensor.name,
    shape: tensor.shape,
    dtype: tensor.dtype,
    read(start, count) {
      const values = tensor.read(start, count);
      for (let i = 0; i < values.length; i++) {
        const value = values[i]!;
        // A finite number minus itself is 0; NaN and the infinities give NaN. Half as long as
        // Number.isFinite takes.
        if (value - value !== 0) throw nonFinite(tensor, start + i, value);
      }
      return values;
    },
  };
}

function nonFinite({ name, shape }: WeightTensor, place: number, value: number) {
  const index: number[] = [];
  for (let rest = place, axis = shape.length - 1; axis >= 0; axis--) {
    index.unshift(rest % shape[axis]!);
    rest = Math.floor(rest / shape[axis]!);
  }
  return invalidCheckpoint(
    `tensor ${name} [${index}] is ${value}; weights must be finite (--allow-non-finite lets such pass)`,
  );
}
