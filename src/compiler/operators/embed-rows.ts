/**
 * EmbedRows: token ids to the residual stream. In fewer bits the rows are expanded as they are
 * picked, from the codes and scales that a tied head multiplies with: the table stands once in the
 * file and is small in memory too.
 */
import type { Lowering } from "../lowering.ts";
import { type Matrix, matrix, matrixTensor } from "../matrix.ts";
import { bitsOf, type Layout, type Quantized, quantize } from "../quantize.ts";
import { kernelNode, type Operand, parts } from "./operand.ts";
import { operator } from "./operator.ts";

/** The pass's rows of the table `<name>.weight` [V,D]: [B,T,D]. */
export function embedRows(lowering: Lowering, name: string): Operand {
  return emit(lowering, { name, table: matrix(lowering.weight(`${name}.weight`)) });
}

interface EmbedInputs {
  readonly name: string;
  readonly table: Matrix;
}

const emit = operator<EmbedInputs, Operand>({
  name: "EmbedRows",
  looksAlongTime: false,
  width: ({ table }) => table.numColumns,

  plain(lowering, { name, table }, width) {
    const { graph: g, tokenIds, float } = lowering;
    const quantized = quantizedTable(lowering, name, table, "rows");
    if (quantized === undefined) {
      const rows = g.initializer(`${name}.weight`, matrixTensor(table, float));
      return { value: g.op("Gather", [rows, tokenIds]), dtype: float, width };
    }
    const { numColumns, bits, codes, scales, blockSize } = quantized;
    const rows = { ...codes, shape: [table.numRows, (numColumns * bits) / 8] };
    const inputs = [g.initializer(`${name}.rows`, rows), tokenIds, g.initializer(`${name}.scales`, scales)];
    const attributes = { bits, block_size: blockSize, gather_axis: 0, quantize_axis: 1 };
    const value = g.op("com.microsoft.GatherBlockQuantized", inputs, attributes);
    return withoutFilling({ value, dtype: float, width: numColumns }, width);
  },

  kernels(lowering, { name, table }, width) {
    const { graph: g, tokenIds } = lowering;
    const quantized = quantizedTable(lowering, name, table, "tiles");
    if (quantized === undefined) return undefined;
    const { numColumns, bits, blockSize } = quantized;
    const codes = g.initializer(`${name}.codes`, quantized.codes);
    const scales = g.initializer(`${name}.scales`, quantized.scales);
    const attributes = { rows: table.numRows, columns: numColumns, bits, block: blockSize };
    const [value] = kernelNode(lowering, "EmbedRows", [codes, scales, tokenIds], 1, attributes);
    return withoutFilling({ value: value!, dtype: "f32", width: numColumns }, width);
  },
});

function quantizedTable(lowering: Lowering, name: string, table: Matrix, layout: Layout): Quantized | undefined {
  const bits = bitsOf(lowering, "table", table);
  return bits && quantize(table, name, bits, layout);
}

/** Without the columns of zeros that the table was filled up with. */
function withoutFilling(x: Operand, width: number): Operand {
  return x.width === width ? x : parts(x, [width, x.width - width])[0]!;
}
