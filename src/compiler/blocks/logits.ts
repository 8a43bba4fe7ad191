/** The final norm, the head, and what sampling needs of the logits. Twin: `logits` in model/reference.ts. */
import { NUM_CANDIDATES } from "../../model/artifact.ts";
import type { MambaConfig } from "../../model/families/mamba.ts";
import type { Value } from "../../onnx/graph.ts";
import { linear } from "../linear.ts";
import { type Lowering, sizes } from "../lowering.ts";
import { matrix } from "../matrix.ts";
import { addRmsNorm } from "./rms-norm.ts";

/**
 * Logits [R,V] of the rows asked for; `sum` and `pending` are [B,T,D]. Rows are picked before the norm and the head,
 * which is the largest matrix of a small model: a chunk of a prompt that asks for none pays for none.
 */
export function logits(lowering: Lowering, config: MambaConfig, sum: Value, pending: Value, logitRows: Value): Value {
  const { graph: g, precision, weight } = lowering;
  const pick = (x: Value) => g.op("Gather", [g.op("Reshape", [x, sizes(g, -1, config.hiddenSize)]), logitRows]);
  const [x] = addRmsNorm(lowering, pick(sum), pick(pending), weight("backbone.norm_f.weight"), config.normEpsilon);
  const head = config.tieEmbeddings ? "backbone.embeddings.weight" : "lm_head.weight";
  const result = linear(g, x, "head", matrix(weight(head)), precision);
  g.output("logits", result, "f32", ["R", config.vocabSize]);
  return result;
}

/** `top_logits`, `top_ids`, `log_sum_exp`, `tempered_log_sum_exp` of logits [R,V]. */
export function sampleStatistics({ graph: g }: Lowering, vocabSize: number, logits: Value, temperature: Value): void {
  const numCandidates = Math.min(NUM_CANDIDATES, vocabSize);
  const [top, ids] = g.ops("TopK", [logits, sizes(g, numCandidates)], 2) as [Value, Value];
  g.output("top_logits", top, "f32", ["R", numCandidates]);
  g.output("top_ids", ids, "i64", ["R", numCandidates]);

  g.output("log_sum_exp", g.op("ReduceLogSumExp", [logits, sizes(g, 1)], { keepdims: 0 }), "f32", ["R"]);
  const tempered = g.op("Div", [logits, g.op("Unsqueeze", [temperature, sizes(g, 1)])]);
  g.output("tempered_log_sum_exp", g.op("ReduceLogSumExp", [tempered, sizes(g, 1)], { keepdims: 0 }), "f32", ["R"]);
}
