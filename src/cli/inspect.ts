/** `densemamba inspect`: what a model is and what a session of it costs, from its files alone; nothing is compiled or run. */
import { existsSync, statSync } from "node:fs";
import path from "node:path";
import type { Config } from "../config.ts";
import type { ModelSizes } from "../model/artifact.ts";
import { openCheckpoint, sourceFiles } from "../model/checkpoint.ts";
import type { ExpectedTensor } from "../model/families/family.ts";
import { MANIFEST_FILE, readManifest } from "../model/manifest.ts";
import { type StateSpec, stateBytes, stateIn, tensorBytes } from "../model/state.ts";
import { choosePrecisions } from "./device.ts";
import { describeLayers, drawLinks, layerTable } from "./layer-table.ts";
import { type Terminal, write } from "./terminal.ts";
import { formatBytes, formatCount } from "./units.ts";

interface Inspection {
  readonly name: string;
  readonly kind: "checkpoint" | "artifact";
  readonly family: string;
  readonly numParameters: number;
  /** Of an artifact: its own. Of a checkpoint: what it would be compiled to on this device. */
  readonly precision: string;
  /** Of an artifact: the version of our own operators that its graphs need. */
  readonly kernels?: number | undefined;
  readonly sizes: ModelSizes;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  readonly state: StateSpec;
  /** Of a checkpoint; an artifact's manifest does not list them. */
  readonly tensors: readonly ExpectedTensor[];
}

/** @throws `invalid_checkpoint`, `invalid_artifact` */
export async function inspect(config: Config, { json }: { readonly json: boolean }, terminal: Terminal): Promise<void> {
  const isArtifact = existsSync(path.join(config.model, MANIFEST_FILE));
  const inspection = isArtifact ? await inspectArtifact(config.model) : inspectCheckpoint(config);
  await write(terminal.stdout, json ? `${JSON.stringify(toJson(inspection), null, 2)}\n` : toText(inspection));
}

async function inspectArtifact(dir: string): Promise<Inspection> {
  return { ...(await readManifest(dir)), kind: "artifact", tensors: [] };
}

function inspectCheckpoint({ model, precision, device }: Config): Inspection {
  const checkpoint = openCheckpoint(model);
  checkpoint.close();
  const { name, family, numParameters, sizes, tensors } = checkpoint;
  const chosen = choosePrecisions(precision, device === "cuda" ? "cuda" : "cpu")[0]!;
  return {
    name,
    kind: "checkpoint",
    family: family.name,
    numParameters,
    precision: chosen,
    sizes,
    files: sourceFiles(model).map((file) => ({ name: file, bytes: statSync(path.join(model, file)).size })),
    state: stateIn(chosen, checkpoint.state),
    tensors,
  };
}

function toJson(inspection: Inspection) {
  const { name, kind, family, numParameters, precision, kernels, sizes, files, state, tensors } = inspection;
  const bytes = stateBytes(state);
  return {
    name,
    kind,
    family,
    parameters: numParameters,
    precision,
    ...(kind === "artifact" ? { kernels: kernels ?? null } : {}),
    vocab_size: sizes.vocabSize,
    hidden_size: sizes.hiddenSize,
    layers: sizes.numLayers,
    dense_layers: sizes.denseLayers,
    files: files.map(({ name: file, bytes: size }) => ({ name: file, bytes: size })),
    state_bytes_per_session: bytes,
    sessions_per_gib: Math.floor(2 ** 30 / bytes),
    state: state.map((tensor) => ({
      name: tensor.name,
      shape: tensor.shape,
      dtype: tensor.dtype ?? "f32",
      bytes: tensorBytes(tensor),
    })),
    layer_details: describeLayers(sizes, state, tensors).map(({ index, stateBytes: ownBytes, reads, blocks }) => ({
      layer: index,
      state_bytes: ownBytes,
      reads,
      ...(blocks.size > 0 ? { parameters: Object.fromEntries(blocks) } : {}),
    })),
  };
}

function toText(inspection: Inspection): string {
  const { name, kind, family, numParameters, precision, kernels, sizes, files, state, tensors } = inspection;
  const bytes = stateBytes(state);
  const operators = kernels === undefined ? "plain ONNX" : `kernels, version ${kernels}`;
  const layers = describeLayers(sizes, state, tensors);
  const links = sizes.denseLayers > 0 ? `each reads ${sizes.denseLayers} shallower ones` : "no dense links";
  const rows: [string, string][] = [
    ["model", `${name} (${kind})`],
    ["family", family],
    ["parameters", `${formatCount(numParameters)} (${numParameters})`],
    ["precision", kind === "artifact" ? precision : `${precision}, when compiled for this device`],
    ...(kind === "artifact" ? [["operators", operators] as [string, string]] : []),
    ["layers", `${sizes.numLayers}, ${links}`],
    ["width", String(sizes.hiddenSize)],
    ["vocabulary", String(sizes.vocabSize)],
    ["state", `${formatBytes(bytes)} (${bytes} bytes) a session, however long`],
    ["sessions", `${Math.floor(2 ** 30 / bytes)} per GiB`],
    ...files.map((file, index): [string, string] => [
      index === 0 ? "files" : "",
      `${file.name}, ${formatBytes(file.bytes)}`,
    ]),
  ];
  const table = rows.map(([key, value]) => `${key.padEnd(12)}${value}\n`).join("");
  const drawing = sizes.denseLayers > 0 ? `\ndense links: ● reads ○ in its row\n${drawLinks(layers)}` : "";
  return `${table}\nstate by layer\n${layerLines(state).join("")}\n${layerTable(layers)}${drawing}`;
}

/** Layers with the same tensors share a line; so do all layers for what they have in common. */
function layerLines(state: StateSpec): string[] {
  const layers = new Map<string, string[]>();
  for (const tensor of state) {
    const { name, shape, dtype = "f32" } = tensor;
    const [kind, layer = "all"] = name.split(".");
    const text = `${kind} [${shape}]${dtype === "f32" ? "" : ` ${dtype}`} ${formatBytes(tensorBytes(tensor))}`;
    layers.set(layer, [...(layers.get(layer) ?? []), text]);
  }
  const lines = new Map<string, string[]>();
  for (const [layer, tensors] of layers) {
    const text = tensors.join(", ");
    lines.set(text, [...(lines.get(text) ?? []), layer]);
  }
  return [...lines].map(([text, numbers]) => {
    const range = numbers.length > 1 ? `${numbers[0]}–${numbers.at(-1)}` : numbers[0]!;
    return `${range.padEnd(12)}${text}\n`;
  });
}
