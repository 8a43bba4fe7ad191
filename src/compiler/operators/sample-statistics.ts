/**
 * SampleStatistics: what sampling needs of logits: the graph's outputs `top_logits`, `top_ids`,
 * `log_sum_exp` and `tempered_log_sum_exp`. The largest logit is subtracted before anything is
 * raised to a power, and no temperature above zero, however small, gives NaN or loses the largest
 * term.
 */
import { NUM_CANDIDATES } from "../../model/artifact.ts";
import type { Graph, Value } from "../../onnx/graph.ts";
import { sizes } from "../onnx.ts";
import { kernelNode, type Operand } from "./operand.ts";
import { operator } from "./operator.ts";

export interface SampleStatisticsInputs {
  /** f32 [R,V] */
  readonly logits: Operand;
  /** f32 [R], above zero. */
  readonly temperature: Value;
}

/** Its width is the number of candidates. */
export const sampleStatistics = operator<SampleStatisticsInputs, true>({
  name: "SampleStatistics",
  looksAlongTime: false,
  width: ({ logits }) => Math.min(NUM_CANDIDATES, logits.width),

  /**
   * NOTE: onnxruntime 1.30's TopK divides by the number of rows: without any it ends the process.
   * Runners ask for one at least.
   */
  plain({ graph: g }, { logits: { value: logits }, temperature }, width) {
    const [top, ids] = g.ops("TopK", [logits, sizes(g, width)], 2) as [Value, Value];
    // Spelled out: `ReduceLogSumExp` walks the row more often, and finds a maximum that `TopK` has
    // found already.
    const max = g.op("Slice", [top, sizes(g, 0), sizes(g, 1), sizes(g, 1)]);
    const below = g.op("Sub", [logits, max]);
    const logSumExp = (scaled: Value, scaledMax: Value) => {
      const sum = g.op("ReduceSum", [g.op("Exp", [scaled]), sizes(g, 1)], { keepdims: 1 });
      return g.op("Reshape", [g.op("Add", [g.op("Log", [sum]), scaledMax]), sizes(g, -1)]);
    };
    const column = g.op("Unsqueeze", [temperature, sizes(g, 1)]);
    const tempered = logSumExp(g.op("Div", [below, column]), g.op("Div", [max, column]));
    return output(g, [top, ids, logSumExp(below, max), tempered], width);
  },

  kernels(lowering, { logits, temperature }, width) {
    return output(
      lowering.graph,
      kernelNode(lowering, "SampleStatistics", [logits, temperature], 4, { top: width }),
      width,
    );
  },
});

function output(g: Graph, statistics: readonly Value[], width: number): true {
  const [top, ids, logSumExp, tempered] = statistics as [Value, Value, Value, Value];
  g.output("top_logits", top, "f32", ["R", width]);
  g.output("top_ids", ids, "i64", ["R", width]);
  g.output("log_sum_exp", logSumExp, "f32", ["R"]);
  g.output("tempered_log_sum_exp", tempered, "f32", ["R"]);
  return true;
}
