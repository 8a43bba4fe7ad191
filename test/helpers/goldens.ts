/**
 * The logits that others compute for the small checkpoints in test/fixtures, of all families, in
 * one shape.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { RETNET_GOLDENS, readRetNetGolden } from "./retnet-goldens.ts";
import type { TinyFixture } from "./torch-fixtures.ts";
import { readTransformersGolden, TRANSFORMERS_GOLDENS } from "./transformers-goldens.ts";

export interface Golden {
  readonly name: string;
  readonly modelDir: string;
  readonly sequences: readonly {
    readonly tokenIds: readonly number[];
    /** [T][V] */
    readonly logits: readonly ArrayLike<number>[];
  }[];
  /** Of every logit. */
  readonly tolerance: number;
}

/**
 * Our PyTorch recipe, Hugging Face's transformers, the authors' RetNet: each with the tolerance
 * that it is given.
 */
export function readGoldens(tolerances: Record<"torch" | "transformers" | "retnet", number>): readonly Golden[] {
  return [
    ...["torch-tiny-densemamba", "torch-tiny-mamba", "torch-tiny-shared-gate"].map((name) => {
      const modelDir = join("test/fixtures", name);
      const { sequences } = JSON.parse(readFileSync(join(modelDir, "expected.json"), "utf8")) as TinyFixture;
      return { name, modelDir, sequences: sequences.map(renamed), tolerance: tolerances.torch };
    }),
    ...TRANSFORMERS_GOLDENS.map((name) => {
      const { modelDir, sequences } = readTransformersGolden(name);
      return { name, modelDir, sequences: sequences.map(renamed), tolerance: tolerances.transformers };
    }),
    ...RETNET_GOLDENS.map((name) => ({ name, ...readRetNetGolden(name), tolerance: tolerances.retnet })),
  ];
}

function renamed({ token_ids, logits }: { readonly token_ids: number[]; readonly logits: number[][] }) {
  return { tokenIds: token_ids, logits };
}
