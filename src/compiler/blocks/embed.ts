/** Token ids to the residual stream. */
import type { Value } from "../../onnx/graph.ts";
import { quantize } from "../linear.ts";
import type { Lowering } from "../lowering.ts";
import { matrix, matrixTensor } from "../matrix.ts";

/**
 * i64 [B,T] -> [B,T,D], rows of the table `<name>.weight`. In int8 the rows are expanded as they are picked, from the same codes and scales as a tied head
 * multiplies with: the table stands once in the file and is a quarter of its f32 size in memory.
 */
export function embed({ graph: g, precision, weight }: Lowering, tokenIds: Value, name: string): Value {
  const table = matrix(weight(`${name}.weight`));
  const quantized = precision === "int8" ? quantize(table, name) : undefined;
  if (quantized === undefined) {
    return g.op("Gather", [g.initializer(`${name}.weight`, matrixTensor(table)), tokenIds]);
  }
  const rows = { ...quantized.codes, shape: [table.numRows, table.numColumns] };
  const scales = g.initializer(`${name}.scales`, quantized.scales);
  return g.op("com.microsoft.GatherBlockQuantized", [g.initializer(`${name}.rows`, rows), tokenIds, scales], {
    bits: 8,
    block_size: quantized.blockSize,
    gather_axis: 0,
    quantize_axis: 1,
  });
}
