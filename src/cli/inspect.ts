/**
 * `densemamba inspect`: what a model is and what a session of it costs. Reads the model's files
 * alone; compiles and runs nothing.
 */
import { existsSync, statSync } from "node:fs";
import path from "node:path";
import { choosePrecisions } from "../app/device.ts";
import type { Config } from "../config/schema.ts";
import { type ModelSizes, stateIn } from "../model/artifact.ts";
import { openCheckpoint, sourceFiles } from "../model/checkpoint.ts";
import type { ExpectedTensor } from "../model/families/family.ts";
import { MANIFEST_FILE, readManifest } from "../model/manifest.ts";
import { numElements, type StateSpec, stateBytes, tensorBytes } from "../model/state.ts";
import { modelFolder } from "../model/weight-files.ts";
import { formatBytes, formatCount, type Terminal, write } from "./terminal.ts";

interface Inspection {
  readonly name: string;
  readonly kind: "checkpoint" | "artifact";
  readonly family: string;
  readonly numParameters: number;
  /** An artifact's own; what a checkpoint would be compiled to on this device. */
  readonly precision: string;
  /** The version of our operators that an artifact's graphs need. */
  readonly kernels?: number | undefined;
  readonly sizes: ModelSizes;
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
  readonly state: StateSpec;
  /** Empty for an artifact, whose manifest does not list them. */
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

function inspectCheckpoint({ model, precision, statePrecision, device }: Config): Inspection {
  const checkpoint = openCheckpoint(model);
  checkpoint.close();
  const { name, family, numParameters, sizes, tensors } = checkpoint;
  const chosen = choosePrecisions(precision, { device: device === "cuda" ? "cuda" : "cpu" })[0]!;
  return {
    name,
    kind: "checkpoint",
    family: family.name,
    numParameters,
    precision: chosen,
    sizes,
    files: sourceFiles(model).map((file) => ({
      name: file,
      bytes: statSync(path.join(modelFolder(model), file)).size,
    })),
    state: stateIn({ precision: chosen, lowering: "plain", statePrecision }, checkpoint.state),
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
  return `${table}\nstate by layer\n${stateLines(state).join("")}\n${layerTable(layers)}${drawing}`;
}

/** A line for all layers with the same tensors, and one for what all layers have in common. */
function stateLines(state: StateSpec): string[] {
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

export interface Layer {
  readonly index: number;
  /** Without states that all layers share. */
  readonly stateBytes: number;
  /** The shallower layers that it reads, the nearest first. */
  readonly reads: readonly number[];
  /** Parameters by block, e.g. `in_proj`, in the checkpoint's order; empty if not known. */
  readonly blocks: ReadonlyMap<string, number>;
}

/** `tensors` are named as in the checkpoint, `….layers.<l>.….<block>.weight`. */
export function describeLayers(
  { numLayers, denseLayers }: { readonly numLayers: number; readonly denseLayers: number },
  state: StateSpec,
  tensors: readonly ExpectedTensor[],
): Layer[] {
  return Array.from({ length: numLayers }, (_, index) => {
    const own = state.filter(({ name }) => name.endsWith(`.${index}`));
    const blocks = new Map<string, number>();
    for (const { name, shape } of tensors) {
      const [, layer, path] = /\.layers\.(\d+)\.(.+)$/.exec(name) ?? [];
      if (Number(layer) !== index) continue;
      const block = blockOf(path!);
      blocks.set(block, (blocks.get(block) ?? 0) + numElements(shape));
    }
    return {
      index,
      stateBytes: own.reduce((sum, tensor) => sum + tensorBytes(tensor), 0),
      reads: Array.from({ length: Math.min(denseLayers, index) }, (_, i) => index - 1 - i),
      blocks,
    };
  });
}

/**
 * `mixer.in_proj.weight` → `in_proj`, `mixer.select.fc1.weight` → `select`, `norm.weight` → `norm`;
 * a block's own vectors, which an RWKV has many of, are `vectors`.
 */
function blockOf(path: string): string {
  const parts = path.split(".");
  const isInside = ["mixer", "self_attn", "attn", "ffn"].includes(parts[0]!);
  if (isInside && parts.length === 2 && parts[0] !== "mixer") return "vectors";
  return parts[isInside ? 1 : 0]!;
}

/** A row for each layer, a column for each block. */
export function layerTable(layers: readonly Layer[]): string {
  const blocks = [...new Set(layers.flatMap((layer) => [...layer.blocks.keys()]))];
  const hasParameters = blocks.length > 0;
  const head = ["layer", "state", ...(hasParameters ? ["parameters"] : []), ...blocks];
  const rows = layers.map((layer) => {
    const parameters = [...layer.blocks.values()].reduce((sum, count) => sum + count, 0);
    const counts = blocks.map((block) => formatCount(layer.blocks.get(block) ?? 0).replace(/^0$/, "–"));
    const total = hasParameters ? [formatCount(parameters)] : [];
    return [String(layer.index), formatBytes(layer.stateBytes), ...total, ...counts];
  });
  const widths = head.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) => `${cells.map((cell, i) => cell.padStart(widths[i]!)).join("  ")}\n`;
  return [head, ...rows].map(line).join("");
}

/** A row and a column for each layer: ● on the diagonal, linked to ○ for those that it reads. */
export function drawLinks(layers: readonly Layer[]): string {
  const width = Math.max("layer".length, String(layers.length - 1).length);
  return layers
    .map(({ index, reads }) => {
      const first = Math.min(index, ...reads);
      const cells = Array.from({ length: index - first + 1 }, (_, i) => {
        const column = first + i;
        return column === index ? "●" : reads.includes(column) ? "○" : "─";
      });
      return `${String(index).padStart(width)}  ${"  ".repeat(first)}${cells.join("─")}\n`;
    })
    .join("");
}
