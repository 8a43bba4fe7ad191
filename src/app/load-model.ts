/** From a model's folder to a verified artifact, compiled if necessary, and a runner on a device. */
import { existsSync } from "node:fs";
import path from "node:path";
import { ensureArtifact, verifyArtifact } from "../compiler/artifact-cache.ts";
import type { CompileProgress } from "../compiler/compile.ts";
import { FileHasher } from "../compiler/file-hash.ts";
import { readLibraryPath } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
import { DenseMambaError, type ErrorCode } from "../errors.ts";
import type { LoweringKind, Manifest, Precision } from "../model/artifact.ts";
import { hasHalfStates, MANIFEST_FILE, readManifest } from "../model/manifest.ts";
import { inspectCuda, openRunner } from "../runtime/open.ts";
import { findOrtLibrary, openableProviders } from "../runtime/ort-library.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import { chooseDevices, choosePrecisions, type DeviceChoice, type DeviceFacts } from "./device.ts";
import { findKernels, loweringFor } from "./kernels.ts";
import { numThreads } from "./machine.ts";

export interface LoadedModel {
  readonly manifest: Manifest;
  readonly device: "cpu" | "cuda";
  /** The first call returns the runner that has proven the device; later calls open another. */
  openRunner(): Promise<ModelRunner>;
}

export interface LoadOptions {
  readonly numSlots: number;
  /** Opens no runner until the first is asked for. Then no device can stand in for another. */
  readonly opensLater?: boolean;
  /** Compiles nothing, which would hold up all requests. */
  readonly cachedOnly?: boolean;
  /** Called before anything of the model is loaded; it may throw. */
  readonly checkModel?: (model: Pick<LoadedModel, "manifest" | "device">) => void;
  readonly onProgress: (progress: CompileProgress) => void;
  /** Called with what was chosen, and why. */
  readonly note: (message: string) => void;
}

export const DEVICE_FACTS: DeviceFacts = {
  hasCudaProvider: () => openableProviders(["CUDAExecutionProvider"], findOrtLibrary()).length > 0,
  inspectCuda: () => inspectCuda(readLibraryPath()),
};

interface Artifact {
  readonly dir: string;
  readonly manifest: Manifest;
}

/**
 * @throws `device_unavailable`, `invalid_checkpoint`, `invalid_artifact`, `invalid_config`,
 * `unsupported_value`
 */
export async function loadModel(config: Config, options: LoadOptions): Promise<LoadedModel> {
  const devices = await chooseDevices(config, DEVICE_FACTS);
  return firstThatWorks("device_unavailable", devices, options.note, async (choice) => {
    const { device, reason } = choice;
    const kernels = (await mayUseKernels(config.model)) ? await findKernels(config, device, options.note) : undefined;
    const lowering = loweringFor(kernels, config.model, options.note);
    const { dir: artifactDir, manifest } = await findArtifact(config, { choice, lowering }, options);
    checkChunk(config, manifest);
    options.checkModel?.({ manifest, device });
    const open = () =>
      openRunner(config.runtime, {
        artifactDir,
        numSlots: options.numSlots,
        numThreads: numThreads(config),
        device,
        kernels,
        note: options.note,
      });
    let first: ModelRunner | undefined = options.opensLater ? undefined : await open();
    options.note(`device ${device}: ${reason}`);
    return {
      manifest,
      device,
      async openRunner() {
        const runner = first ?? (await open());
        first = undefined;
        return runner;
      },
    };
  });
}

/** A checkpoint can still be compiled for the kernels; an artifact already is, or is not. */
async function mayUseKernels(modelDir: string): Promise<boolean> {
  return !isArtifact(modelDir) || (await readManifest(modelDir)).kernels !== undefined;
}

function isArtifact(modelDir: string): boolean {
  return existsSync(path.join(modelDir, MANIFEST_FILE));
}

/**
 * A folder with a manifest is an artifact. Any other is a checkpoint, which is compiled into the
 * cache if it is not there.
 */
async function findArtifact(
  config: Config,
  { choice, lowering }: { readonly choice: DeviceChoice; readonly lowering: LoweringKind },
  options: LoadOptions,
): Promise<Artifact> {
  const { model: modelDir, cacheDir, allowNonFinite, statePrecision } = config;
  if (!isArtifact(modelDir)) {
    const { onProgress, cachedOnly = false } = options;
    const source = { modelDir, lowering, statePrecision, cacheDir, allowNonFinite, onProgress, cachedOnly };
    const precisions = choosePrecisions(config.precision, choice);
    return firstThatWorks("unsupported_value", precisions, options.note, (precision: Precision) =>
      ensureArtifact({ ...source, precision }),
    );
  }
  const hasher = new FileHasher({ recordDir: path.join(cacheDir, "hashes") });
  const manifest = await verifyArtifact(modelDir, (file) => hasher.hash(file));
  if (choice.device === "cuda") choosePrecisions(manifest.precision, choice); // throws if it does not run there
  if (config.precision !== "auto" && config.precision !== manifest.precision) {
    throw new DenseMambaError(
      "invalid_config",
      `${modelDir} was compiled to ${manifest.precision}; it cannot be served in ${config.precision}`,
    );
  }
  const states = hasHalfStates(manifest) ? "f16" : "f32";
  if (statePrecision !== "auto" && statePrecision !== states) {
    throw new DenseMambaError(
      "invalid_config",
      `${modelDir} was compiled with states in ${states}; it cannot be served with states in ${statePrecision}`,
    );
  }
  return { dir: modelDir, manifest };
}

/** The engine reads a prompt that is alone in larger chunks, but never beyond this bound. */
function checkChunk(
  { prefillChunk }: Config,
  { name, family, maxPassSteps = Number.POSITIVE_INFINITY }: Manifest,
): void {
  if (prefillChunk <= maxPassSteps) return;
  throw new DenseMambaError(
    "invalid_config",
    `--prefill-chunk must be at most ${maxPassSteps} for ${name} (${family}), ${prefillChunk} given: ` +
      "a longer pass takes tensors above 256 MiB",
  );
}

/** Tries the next choice after an error of `code`; throws any other, and the last choice's. */
export async function firstThatWorks<Choice, Result>(
  code: ErrorCode,
  choices: readonly Choice[],
  note: (message: string) => void,
  attempt: (choice: Choice) => Promise<Result>,
): Promise<Result> {
  for (const choice of choices.slice(0, -1)) {
    try {
      return await attempt(choice);
    } catch (error) {
      if (!(error instanceof DenseMambaError) || error.code !== code) throw error;
      note(error.message);
    }
  }
  return attempt(choices.at(-1)!);
}
