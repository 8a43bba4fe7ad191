/** Token ids to the residual stream. */
import type { Value } from "../../onnx/graph.ts";
import { type Lowering, sizes, widened } from "../lowering.ts";
import { matrix, matrixTensor } from "../matrix.ts";
import { bitsOf, quantize } from "../quantize.ts";

/**
 * i64 [B,T] -> f32 [B,T,D], rows of the table `<name>.weight`. In fewer bits the rows are expanded as they are picked, from the
 * codes and scales that a tied head multiplies with: the table stands once in the file and is small in memory too.
 */
export function embed(lowering: Lowering, tokenIds: Value, name: string): Value {
  const { graph: g, weight, kind } = lowering;
  const table = matrix(weight(`${name}.weight`));
  const bits = bitsOf(lowering, "table", table);
  const quantized = bits && quantize(table, name, bits, kind === "kernels" ? "tiles" : "rows");
  if (quantized === undefined) {
    const rows = g.initializer(`${name}.weight`, matrixTensor(table, lowering.float));
    return widened(lowering, g.op("Gather", [rows, tokenIds]));
  }
  const numColumns = quantized.numColumns;
  /** Without what the table was filled up with. */
  const cut = (wide: Value) =>
    numColumns === table.numColumns
      ? wide
      : g.op("Slice", [wide, sizes(g, 0), sizes(g, table.numColumns), sizes(g, -1)]);
  if (kind === "kernels") {
    const codes = g.initializer(`${name}.codes`, quantized.codes);
    const wide = g.op("densemamba.EmbedRows", [codes, g.initializer(`${name}.scales`, quantized.scales), tokenIds], {
      rows: table.numRows,
      columns: numColumns,
      bits: quantized.bits,
      block: quantized.blockSize,
    });
    return cut(wide);
  }
  const rows = { ...quantized.codes, shape: [table.numRows, (numColumns * quantized.bits) / 8] };
  const scales = g.initializer(`${name}.scales`, quantized.scales);
  const wide = g.op("com.microsoft.GatherBlockQuantized", [g.initializer(`${name}.rows`, rows), tokenIds, scales], {
    bits: quantized.bits,
    block_size: quantized.blockSize,
    gather_axis: 0,
    quantize_axis: 1,
  });
  return cut(wide);
}
