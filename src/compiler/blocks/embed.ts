/** Token ids to the residual stream. Twin: `embed` in model/reference.ts. */
import type { Value } from "../../onnx/graph.ts";
import type { Lowering } from "../lowering.ts";
import { matrix, matrixTensor } from "../matrix.ts";

/** i64 [B,T] -> [B,T,D]. */
export function embed({ graph: g, weight }: Lowering, tokenIds: Value): Value {
  const table = g.initializer("backbone.embeddings", matrixTensor(matrix(weight("backbone.embeddings.weight"))));
  return g.op("Gather", [table, tokenIds]);
}
