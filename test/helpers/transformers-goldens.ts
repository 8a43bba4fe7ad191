/**
 * What Hugging Face's transformers compute for the two tiny checkpoints of
 * models/recipes/goldens/transformers_goldens.py.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";

export const TRANSFORMERS_GOLDENS = ["hf-tiny-mamba", "hf-tiny-falcon-mamba"] as const;

export interface TransformersGolden {
  readonly modelDir: string;
  readonly sequences: readonly {
    readonly token_ids: number[];
    /** [T][V] */
    readonly logits: number[][];
  }[];
}

export function readTransformersGolden(name: string): TransformersGolden {
  const modelDir = join("test/fixtures", name);
  const { sequences } = JSON.parse(readFileSync(join(modelDir, "expected.json"), "utf8")) as TransformersGolden;
  return { modelDir, sequences };
}

export function argmax(values: ArrayLike<number>): number {
  return Array.from(values).reduce((best, value, i) => (value > values[best]! ? i : best), 0);
}
