/** Layers for people: a row for each with what it holds and carries, and a drawing of the dense links between them. */
import type { ExpectedTensor } from "../model/families/family.ts";
import { numElements, type StateSpec, tensorBytes } from "../model/state.ts";
import { formatBytes, formatCount } from "./units.ts";

export interface Layer {
  readonly index: number;
  /** Of its own; states that all layers share are not counted. */
  readonly stateBytes: number;
  /** The shallower layers that it reads, nearest first. */
  readonly reads: readonly number[];
  /** Parameters by block, in the checkpoint's order: `in_proj`, `conv1d`, …; empty where the tensors are not known. */
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

/** `mixer.in_proj.weight` → `in_proj`, `mixer.select.fc1.weight` → `select`, `norm.weight` → `norm`. */
function blockOf(path: string): string {
  const parts = path.split(".");
  const isInsideMixer = parts[0] === "mixer" || parts[0] === "self_attn";
  return parts[isInsideMixer ? 1 : 0]!;
}

/** One line a layer under a head; the blocks are columns. */
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

/** A column for each layer: ○ where it is read, ● where it stands, and lines that lead from those it reads to it. */
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
