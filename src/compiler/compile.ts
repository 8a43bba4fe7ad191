/**
 * The model compiler's entry: a checkpoint folder in, an artifact out (an ONNX graph, its weights,
 * a manifest). Knows nothing of ONNX Runtime sessions, the engine or HTTP.
 *
 * Glossary, for this folder and `model/reference.ts`; names as in "Mamba" (arXiv 2312.00752) and
 * DenseSSM (2403.00818):
 *
 *   B, T, R   batch, time steps of this pass, rows that get logits   (as dimensions)
 *   S         steps of all sequences of a pass together, where their lengths are unequal
 *   V, D, L   vocabulary; width of the residual stream (hidden_size); number of layers
 *   E         channels of the mixer (d_inner)
 *   N         numbers a channel remembers (state_size)
 *   K         taps of the causal convolution
 *   m         how many shallower layers each layer reads (dense_layers); l a layer
 *   u, z      [E] the convolved input and the output gate
 *   Δ, B_t, C_t   step size [E] > 0, write and read vectors [N]
 *   A         [N,E] = -exp(A_log), transposed from the checkpoint's [E,N]
 *   h_t^l     [N,E] carried state of layer l, own recurrence only
 *   G_i       [E] selective gate on the state of layer l-i
 */
import { createHash } from "node:crypto";
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  type ArtifactFile,
  KERNELS_VERSION,
  type LoweringKind,
  type Manifest,
  type Precision,
  stateIn,
  type Target,
} from "../model/artifact.ts";
import { type Checkpoint, openCheckpoint } from "../model/checkpoint.ts";
import { FORMAT_VERSION, MANIFEST_FILE } from "../model/manifest.ts";
import { encodeModel } from "../onnx/encode.ts";
import { ExternalData } from "../onnx/external-data.ts";
import { chainOperators } from "./chains.ts";
import { equalised } from "./equalise.ts";
import { hashFile, sha256 } from "./file-hash.ts";
import { assertInPlaceSafe } from "./in-place.ts";
import { lower, surveyOperators, targetOf, type Wanted } from "./lower.ts";
import { COMPILER_VERSION, hashModel } from "./source-hash.ts";

const GRAPH_FILE = "model.onnx";
const DECODE_GRAPH_FILE = "decode.onnx";
const GRAPHS = [
  [GRAPH_FILE, "many"],
  [DECODE_GRAPH_FILE, "one"],
] as const;
/** Both graphs' large tensors. */
const DATA_FILE = "weights.bin";
/** About: scales included, the smaller tensors that stay in f32 not. */
const BYTES_PER_WEIGHT: Readonly<Record<Precision, number>> = { f32: 4, f16: 2, bf16: 2, int8: 1, int4: 0.6 };
const OPSETS = [
  { domain: "", version: 21 },
  { domain: "com.microsoft", version: 1 },
];
/** Our own operators, see kernels/. */
const KERNELS_OPSET = { domain: "densemamba", version: 1 };

export interface CompileProgress {
  /** Bytes of weights written, of about `total`. */
  readonly done: number;
  readonly total: number;
  readonly message: string;
}

export interface CompileOptions extends Wanted {
  readonly modelDir: string;
  /**
   * `kernels` needs the native runner on a CPU, and its library; f16 is plain all the same. `cuda`
   * needs CUDA, and the library for it. Default: `plain`.
   */
  readonly lowering?: LoweringKind;
  /** Created if missing; files in it are overwritten. The manifest is written last. */
  readonly outDir: string;
  readonly onProgress?: (progress: CompileProgress) => void;
  /**
   * Let weights that are NaN or infinite pass. What is compiled so is found again only by asking so
   * again.
   */
  readonly allowNonFinite?: boolean;
  /** `hashModel` of the source, if the caller has it already. */
  readonly modelHash?: string;
}

/**
 * @throws `invalid_checkpoint`; `unsupported_value` if the precision does not fit the model's
 * weights.
 */
export async function compileModel(options: CompileOptions): Promise<Manifest> {
  const { modelDir, outDir } = options;
  const target = targetOf(options);
  const { precision, lowering } = target;
  const opened = openCheckpoint(modelDir, { allowNonFinite: options.allowNonFinite ?? false });
  const checkpoint = equalised(opened, precision);
  try {
    const { isRagged } = surveyOperators(checkpoint, lowering);
    const modelHash = options.modelHash ?? (await hashModel(modelDir, target, hashFile));
    await mkdir(outDir, { recursive: true });
    const total = checkpoint.numParameters * BYTES_PER_WEIGHT[precision];
    const message = `compiling ${checkpoint.name} to ${precision}`;
    const files = await writeGraphs(checkpoint, { target, isRagged, outDir }, (done) => {
      options.onProgress?.({ done: Math.min(done, total), total, message });
    });
    const manifest: Manifest = {
      formatVersion: FORMAT_VERSION,
      compilerVersion: COMPILER_VERSION,
      modelHash,
      name: checkpoint.name,
      family: checkpoint.family.name,
      precision,
      ...(lowering === "plain" ? {} : { kernels: KERNELS_VERSION }),
      ...(lowering === "cuda" ? { device: "cuda" as const } : {}),
      sizes: checkpoint.sizes,
      numParameters: checkpoint.numParameters,
      bosTokenId: checkpoint.bosTokenId,
      eosTokenIds: checkpoint.eosTokenIds,
      state: stateIn(target, checkpoint.state),
      ...(isRagged && { ragged: true }),
      maxPassSteps: checkpoint.maxPassSteps,
      graph: GRAPH_FILE,
      decodeGraph: DECODE_GRAPH_FILE,
      files,
    };
    await writeFile(join(outDir, MANIFEST_FILE), `${JSON.stringify(manifest, null, 2)}\n`);
    options.onProgress?.({ done: total, total, message });
    return manifest;
  } finally {
    checkpoint.close();
  }
}

async function writeGraphs(
  checkpoint: Checkpoint,
  options: Pick<CompileOptions, "outDir"> & { readonly target: Target; readonly isRagged: boolean },
  onBytes: (bytesWritten: number) => void,
): Promise<ArtifactFile[]> {
  const { target, isRagged, outDir } = options;
  const { lowering } = target;
  const data = await open(join(outDir, DATA_FILE), "w");
  const dataHash = createHash("sha256");
  const external = new ExternalData(DATA_FILE, async (bytes) => {
    dataHash.update(bytes);
    await data.writeFile(bytes);
  });
  const files: ArtifactFile[] = [];
  try {
    for (const [name, steps] of GRAPHS) {
      const graph = lower(checkpoint, target, steps);
      assertInPlaceSafe(graph);
      if (lowering === "kernels") chainOperators(graph, { hasRowPerSequence: steps === "one" || !isRagged });
      const model = await encodeModel(graph, {
        opsets: lowering === "plain" ? OPSETS : [...OPSETS, KERNELS_OPSET],
        producer: { name: "densemamba", version: COMPILER_VERSION },
        external,
        onTensor: () => onBytes(external.numBytes),
      });
      await writeFile(join(outDir, name), model);
      files.push({ name, bytes: model.length, sha256: sha256(model) });
    }
    files.push({ name: DATA_FILE, bytes: external.numBytes, sha256: dataHash.digest("hex") });
    return files;
  } finally {
    await data.close();
  }
}
