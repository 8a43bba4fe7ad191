/**
 * What operators take and give: rows of a known width, perhaps some columns of a value that packs
 * several. Our kernels read such columns where they are; plain ONNX is given a value of their own.
 */
import assert from "node:assert/strict";
import { type AttributeValue, Value } from "../../onnx/graph.ts";
import { DATA_TYPE_CODES, type DataType } from "../../onnx/tensor.ts";
import type { Lowering } from "../lowering.ts";
import type { FloatType } from "../matrix.ts";
import { sizes } from "../onnx.ts";

/** A row for each token: [B,T,width], or [1,S,width] in a ragged pass. */
export interface Operand {
  readonly value: Value;
  readonly dtype: FloatType;
  readonly width: number;
  /** Where `value` packs several. */
  readonly part?: Part;
  /** `value` has the width in two axes: [B,T,heads,width / heads]. */
  readonly heads?: number;
}

interface Part {
  /** Of all parts. */
  readonly widths: readonly number[];
  /** Which of them it is. */
  readonly index: number;
}

/** The parts of a packed projection, side by side. */
export function parts(packed: Operand, widths: readonly number[]): Operand[] {
  const total = widths.reduce((a, b) => a + b, 0);
  assert(packed.part === undefined && total === packed.width, `${total} columns of ${packed.width} in parts`);
  const { value, dtype } = packed;
  return widths.map((width, index) => ({ value, dtype, width, part: { widths, index } }));
}

/** In that type, as it stands. */
export function converted(lowering: Lowering, x: Operand, dtype: FloatType): Operand {
  return x.dtype === dtype ? x : { ...x, value: castOnce(lowering, x.value, dtype), dtype };
}

/** As a value of its own, [B,T,width]. */
export function toValue(lowering: Lowering, x: Operand, dtype: FloatType = x.dtype): Value {
  const { graph: g } = lowering;
  const own = x.heads === undefined ? ownValue(lowering, x) : g.op("Reshape", [x.value, sizes(g, 0, 0, x.width)]);
  return dtype === x.dtype ? own : castOnce(lowering, own, dtype);
}

/** As [B,T,heads,width / heads]. */
export function perHead(lowering: Lowering, x: Operand, heads: number, dtype: FloatType = x.dtype): Value {
  const { graph: g } = lowering;
  if (x.heads === heads) return x.dtype === dtype ? x.value : castOnce(lowering, x.value, dtype);
  return g.op("Reshape", [toValue(lowering, x, dtype), sizes(g, 0, 0, heads, x.width / heads)]);
}

function ownValue(lowering: Lowering, { value, part }: Operand): Value {
  if (part === undefined) return value;
  const { parts } = lowering.conversions;
  const all = parts.get(value) ?? [];
  parts.set(value, all);
  if (all[part.index] === undefined) cut(lowering, value, part, all);
  return all[part.index]!;
}

/** Fills in what it cuts. */
function cut({ graph: g, kind }: Lowering, value: Value, part: Part, all: Value[]): void {
  const { widths, index } = part;
  if (kind === "cuda" && new Set(widths).size > 1) {
    // There `Split` copies unequal widths to the device in every pass.
    const first = firstColumn(part);
    all[index] = g.op("Slice", [value, sizes(g, first), sizes(g, first + widths[index]!), sizes(g, -1)]);
  } else {
    all.push(...g.ops("Split", [value, sizes(g, ...widths)], widths.length, { axis: -1 }));
  }
}

function firstColumn({ widths, index }: Part): number {
  return widths.slice(0, index).reduce((a, b) => a + b, 0);
}

function castOnce({ graph: g, conversions }: Lowering, value: Value, dtype: DataType): Value {
  const casts = conversions.casts.get(value) ?? new Map<DataType, Value>();
  conversions.casts.set(value, casts);
  const known = casts.get(dtype) ?? g.op("Cast", [value], { to: DATA_TYPE_CODES[dtype] });
  casts.set(dtype, known);
  return known;
}

/**
 * A node of one of our kernels, which take f32 and give it. Of a part it reads the columns that the
 * attribute `views` names.
 */
export function kernelNode(
  lowering: Lowering,
  name: string,
  inputs: readonly (Operand | Value | undefined)[],
  numOutputs: number,
  attributes: Record<string, AttributeValue> = {},
): Value[] {
  const views: string[] = [];
  const values = inputs.map((input, i) => {
    if (input === undefined || input instanceof Value) return input;
    if (input.part === undefined) return toValue(lowering, input, "f32");
    const first = firstColumn(input.part);
    views.push(`${i}[${first}:${first + input.width}]`);
    return converted(lowering, input, "f32").value;
  });
  const all = views.length === 0 ? attributes : { ...attributes, views: views.join(" ") };
  return lowering.graph.ops(`densemamba.${name}`, values, numOutputs, all);
}
