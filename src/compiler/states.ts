/**
 * A state's two ends in a graph: `past_<name>` and `present_<name>`, of the type that the artifact
 * keeps it in.
 */
import assert from "node:assert/strict";
import type { StateTensor } from "../model/state.ts";
import type { Value } from "../onnx/graph.ts";
import type { Lowering } from "./lowering.ts";
import type { FloatType } from "./matrix.ts";
import { cast } from "./onnx.ts";

/** [B, ...shape], cast to `float` if it is kept in another type. Asked for once a graph. */
export function pastState(lowering: Lowering, name: string, float: FloatType = "f32"): Value {
  const { shape, dtype } = find(lowering, name);
  const past = lowering.graph.input(`past_${name}`, dtype, ["B", ...shape]);
  return dtype === float ? past : cast(lowering.graph, past, float);
}

/** Takes `value` of type `float`, a node's result that is not an output yet. */
export function presentState(lowering: Lowering, name: string, value: Value, float: FloatType = "f32"): void {
  const { shape, dtype } = find(lowering, name);
  const present = dtype === float ? value : cast(lowering.graph, value, dtype);
  lowering.graph.output(`present_${name}`, present, dtype, ["B", ...shape]);
}

/** The type that it is kept in. */
export function stateType(lowering: Lowering, name: string): FloatType {
  return find(lowering, name).dtype;
}

function find({ state }: Lowering, name: string): StateTensor & { readonly dtype: FloatType } {
  const found = state.find((tensor) => tensor.name === name);
  assert(found, `the model has no state ${name}`);
  return { ...found, dtype: found.dtype ?? "f32" };
}
