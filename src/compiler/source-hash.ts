/** The identity of a checkpoint and of what is compiled from it. */
import { join } from "node:path";
import { KERNELS_VERSION, type Target } from "../model/artifact.ts";
import { sourceFiles } from "../model/checkpoint.ts";
import { FORMAT_VERSION } from "../model/manifest.ts";
import { modelFolder } from "../model/weight-files.ts";
import { invalidCheckpoint } from "../model/weights.ts";
import { sha256 } from "./file-hash.ts";

/**
 * Part of every model hash, hence of every cache key: raise it when a graph's numbers or its
 * states' layout change.
 */
export const COMPILER_VERSION = "9";

/**
 * What states and cached artifacts are valid for: config, weights, precision, that of states,
 * compiler, and the operators of the graph.
 * @throws `invalid_checkpoint` if a file cannot be read.
 */
export async function hashModel(
  modelDir: string,
  { precision, lowering, statePrecision }: Target,
  hashFile: (path: string) => Promise<string>,
): Promise<string> {
  const lines = [`format ${FORMAT_VERSION} compiler ${COMPILER_VERSION} precision ${precision}`];
  if (lowering !== "plain") lines.push(`${lowering} ${KERNELS_VERSION}`);
  if (statePrecision !== "auto") lines.push(`states ${statePrecision}`);
  for (const name of sourceFiles(modelDir)) {
    const path = join(modelFolder(modelDir), name);
    try {
      lines.push(`${name} ${await hashFile(path)}`);
    } catch (cause) {
      throw invalidCheckpoint(`cannot read ${path}`, cause);
    }
  }
  return sha256(lines.join("\n"));
}
