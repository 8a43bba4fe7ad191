/** The final norm, the head, and what sampling needs of the logits. */
import { NUM_CANDIDATES } from "../../model/artifact.ts";
import type { Graph, Value } from "../../onnx/graph.ts";
import { linear } from "../linear.ts";
import { type Lowering, narrowed, sizes, widened } from "../lowering.ts";
import { addRmsNorm } from "./rms-norm.ts";

/** Sizes, and the names of tensors without `.weight`. */
export interface Head {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly normEpsilon: number;
  readonly finalNorm: string;
  /** Of a tied head: the embedding's. */
  readonly head: string;
}

/**
 * Logits, f32 [R,V], of the requested rows; `sum`, f32, and `pending` are [B,T,D]. Rows are picked before the norm and the head,
 * which is the largest matrix of a small model: a chunk of a prompt that asks for none pays for none.
 */
export function logits(
  lowering: Lowering,
  { vocabSize, hiddenSize, normEpsilon, finalNorm, head }: Head,
  { sum, pending }: { readonly sum: Value; readonly pending: Value },
  logitRows: Value,
): Value {
  const { graph: g, weight } = lowering;
  const pick = (x: Value) => g.op("Gather", [g.op("Reshape", [x, sizes(g, -1, hiddenSize)]), logitRows]);
  const [x] = addRmsNorm(
    lowering,
    pick(sum),
    widened(lowering, pick(pending)),
    weight(`${finalNorm}.weight`),
    normEpsilon,
    "f32",
  );
  const result = widened(lowering, linear(lowering, narrowed(lowering, x), head, { role: "table" }));
  g.output("logits", result, "f32", ["R", vocabSize]);
  return result;
}

/**
 * `top_logits`, `top_ids`, `log_sum_exp`, `tempered_log_sum_exp` of logits [R,V]. The largest logit is subtracted before
 * anything is raised to a power, and no temperature above zero, however small, gives NaN or loses the largest term.
 */
export function sampleStatistics(
  { graph: g, kind }: Lowering,
  vocabSize: number,
  logits: Value,
  temperature: Value,
): void {
  const numCandidates = Math.min(NUM_CANDIDATES, vocabSize);
  const { top, ids, logSumExp, tempered } =
    kind === "kernels"
      ? ownStatistics(g, logits, temperature, numCandidates)
      : plainStatistics(g, logits, temperature, numCandidates);
  g.output("top_logits", top, "f32", ["R", numCandidates]);
  g.output("top_ids", ids, "i64", ["R", numCandidates]);
  g.output("log_sum_exp", logSumExp, "f32", ["R"]);
  g.output("tempered_log_sum_exp", tempered, "f32", ["R"]);
}

interface Statistics {
  readonly top: Value;
  readonly ids: Value;
  readonly logSumExp: Value;
  readonly tempered: Value;
}

function ownStatistics(g: Graph, logits: Value, temperature: Value, numCandidates: number): Statistics {
  const results = g.ops("densemamba.SampleStatistics", [logits, temperature], 4, { top: numCandidates });
  const [top, ids, logSumExp, tempered] = results as [Value, Value, Value, Value];
  return { top, ids, logSumExp, tempered };
}

/** NOTE: onnxruntime 1.30's TopK divides by the number of rows: without any it ends the process. Runners ask for one at least. */
function plainStatistics(g: Graph, logits: Value, temperature: Value, numCandidates: number): Statistics {
  const [top, ids] = g.ops("TopK", [logits, sizes(g, numCandidates)], 2) as [Value, Value];
  // Spelled out: `ReduceLogSumExp` walks the row more often, and finds a maximum that `TopK` has found already.
  const max = g.op("Slice", [top, sizes(g, 0), sizes(g, 1), sizes(g, 1)]);
  const below = g.op("Sub", [logits, max]);
  const logSumExp = (scaled: Value, scaledMax: Value) => {
    const sum = g.op("ReduceSum", [g.op("Exp", [scaled]), sizes(g, 1)], { keepdims: 1 });
    return g.op("Reshape", [g.op("Add", [g.op("Log", [sum]), scaledMax]), sizes(g, -1)]);
  };
  const column = g.op("Unsqueeze", [temperature, sizes(g, 1)]);
  const tempered = logSumExp(g.op("Div", [below, column]), g.op("Div", [max, column]));
  return { top, ids, logSumExp: logSumExp(below, max), tempered };
}
