/** Small pieces of plain ONNX. */
import type { Graph, Value } from "../onnx/graph.ts";
import { DATA_TYPE_CODES, type DataType, i64Tensor } from "../onnx/tensor.ts";

/** i64 [n]: the shapes, axes and sizes that ONNX takes as inputs. */
export function sizes(g: Graph, ...values: number[]): Value {
  return g.constant(i64Tensor([values.length], values));
}

/** As the end of a `Slice`. */
export const TO_THE_END = 2 ** 31 - 1;

export function cast(g: Graph, x: Value, to: DataType): Value {
  return g.op("Cast", [x], { to: DATA_TYPE_CODES[to] });
}
