/** Token ids to the residual stream. Twin: `embed` in model/reference.ts. */
import type { Value } from "../../onnx/graph.ts";
import { quantize } from "../linear.ts";
import type { Lowering } from "../lowering.ts";
import { matrix, matrixTensor } from "../matrix.ts";

const NAME = "backbone.embeddings";

/**
 * i64 [B,T] -> [B,T,D]. In int8 the rows are expanded as they are picked, from the same codes and scales as a tied head
 * multiplies with: the table stands once in the file and is a quarter of its f32 size in memory.
 */
export function embed({ graph: g, precision, weight }: Lowering, tokenIds: Value): Value {
  const table = matrix(weight(`${NAME}.weight`));
  const quantized = precision === "int8" ? quantize(table, NAME) : undefined;
  if (quantized === undefined) {
    return g.op("Gather", [g.initializer(`${NAME}.weight`, matrixTensor(table)), tokenIds]);
  }
  const rows = { ...quantized.codes, shape: [table.numRows, table.numColumns] };
  const scales = g.initializer(`${NAME}.scales`, quantized.scales);
  return g.op("com.microsoft.GatherBlockQuantized", [g.initializer(`${NAME}.rows`, rows), tokenIds, scales], {
    bits: 8,
    block_size: quantized.blockSize,
    gather_axis: 0,
    quantize_axis: 1,
  });
}
