/**
 * What the authors' PyTorch code computes for the two tiny DenseRetNets in `test/fixtures`, f32 on
 * CPU.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { readRawTensors } from "./checkpoints.ts";

export const RETNET_GOLDENS = ["dense-retnet-hub", "dense-retnet-github"] as const;

export interface RetNetGolden {
  readonly modelDir: string;
  readonly config: Record<string, unknown>;
  readonly sequences: readonly {
    readonly tokenIds: number[];
    /** [T][V], token by token with carried state. */
    readonly logits: Float32Array[];
  }[];
}

export function readRetNetGolden(name: string): RetNetGolden {
  const modelDir = join("test/fixtures", name);
  const expected = readRawTensors(modelDir, "expected.safetensors");
  const tokenIds = Array.from(new BigInt64Array(Uint8Array.from(expected.get("input_ids")!.bytes).buffer), Number);
  const { bytes, shape } = expected.get("logits_recurrent")!;
  const [batch, numSteps, vocabSize] = shape as [number, number, number];
  const logits = new Float32Array(Uint8Array.from(bytes).buffer);
  return {
    modelDir,
    config: JSON.parse(readFileSync(join(modelDir, "config.json"), "utf8")) as Record<string, unknown>,
    sequences: Array.from({ length: batch }, (_, b) => ({
      tokenIds: tokenIds.slice(b * numSteps, (b + 1) * numSteps),
      logits: Array.from({ length: numSteps }, (_, t) => {
        const row = (b * numSteps + t) * vocabSize;
        return logits.subarray(row, row + vocabSize);
      }),
    })),
  };
}
