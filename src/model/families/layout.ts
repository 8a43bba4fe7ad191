/**
 * How a kind of file names and stores a family's tensors. A family has one set of names of its own;
 * whatever else checkpoints call them is translated when they are opened. Knows no family.
 */
import { numElements } from "../state.ts";
import { readAll, type WeightTensor } from "../weights.ts";

export interface Layout {
  /** The family's name for a tensor of the file. */
  familyName(fileName: string): string;
  /** The other way, for messages about a tensor that the file should have. */
  fileName(familyName: string): string;
  /** The tensor in the family's shape. Default: as it is. */
  adapt?(tensor: WeightTensor, familyName: string): WeightTensor;
}

/**
 * transformers saves a model without its head without the prefix that its tensors have in the model
 * with one.
 */
export function withOptionalPrefix(prefix: string, tensors: readonly WeightTensor[]): Layout {
  const isHeadless = !tensors.some(({ name }) => name.startsWith(prefix));
  return {
    familyName: (name) => (isHeadless ? prefix + name : name),
    fileName: (name) => name,
  };
}

/** [rows, columns] -> [columns, rows]. For small matrices: every read reads the whole. */
export function transposed(tensor: WeightTensor): WeightTensor {
  const [rows, columns] = tensor.shape as [number, number];
  return {
    ...tensor,
    name: `${tensor.name} (transposed)`,
    shape: [columns, rows],
    read(start, count) {
      const source = readAll(tensor);
      return new Float32Array(count).map((_, i) => {
        const [column, row] = [Math.floor((start + i) / rows), (start + i) % rows];
        return source[row * columns + column]!;
      });
    },
  };
}

/** A vector that some files store as [1, 1, D], as [D]. */
export function squeezed(tensor: WeightTensor): WeightTensor {
  const last = tensor.shape.at(-1);
  return last === numElements(tensor.shape) ? { ...tensor, shape: [last] } : tensor;
}
