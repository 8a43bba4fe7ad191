/**
 * CausalConv: the short convolution along time, SiLU(Σ_k w_k ⊙ x_{t-K+1+k} + b), with its state.
 * Twin: `causalConv` in model/reference/mamba.ts.
 */
import type { Value } from "../../onnx/graph.ts";
import type { Lowering } from "../lowering.ts";
import { transposedTensor, vectorTensor } from "../matrix.ts";
import { sizes, TO_THE_END } from "../onnx.ts";
import { pastState, presentState } from "../states.ts";
import { silu } from "./activation.ts";
import { kernelNode, type Operand, toValue } from "./operand.ts";
import { operator } from "./operator.ts";

export interface CausalConvInputs {
  readonly x: Operand;
  /** Name of the state [K-1,width]: the last inputs, oldest first. */
  readonly state: string;
  /** Of the tensors: `.weight` [width,1,K], and `.bias` [width] if there is one. */
  readonly name: string;
  readonly numTaps: number;
  readonly bias: boolean;
}

/** As DM_MAX_TAPS in kernels/limits.h. */
export const MAX_TAPS = 16;

export const causalConv = operator<CausalConvInputs, Operand>({
  name: "CausalConv",
  looksAlongTime: true,
  width: ({ x }) => x.width,
  limits: ({ numTaps }) => [{ name: "conv_kernel", value: numTaps, most: MAX_TAPS }],

  /**
   * The past is read by `Concat` alone and the present is cut from its result, so the two may be
   * one buffer.
   *
   * Not `CausalConvWithState`: that kernel walks the channels one by one and takes 15 ns for each,
   * four times what these take together (docs/compiler.md).
   */
  plain(lowering, { x, state, name, numTaps: K, bias }, width) {
    const { graph: g, weight, steps, float: dtype } = lowering;
    const past = pastState(lowering, state, dtype);
    const window = g.op("Concat", [past, toValue(lowering, x, dtype)], { axis: 1 });
    const slice = (from: number, to: number) => g.op("Slice", [window, sizes(g, from), sizes(g, to), sizes(g, 1)]);
    presentState(lowering, state, slice(1 - K, TO_THE_END), dtype);

    const taps = g.initializer(
      `${name}.taps`,
      transposedTensor(weight(`${name}.weight`), [width, K], { float: dtype }),
    );
    let sum: Value;
    if (steps === "one") {
      sum = g.op("ReduceSum", [g.op("Mul", [window, taps]), sizes(g, 1)], { keepdims: 1 });
    } else {
      const rows = g.ops("Split", [taps], K, { axis: 0, num_outputs: K });
      const products = rows.map((tap, k) => g.op("Mul", [slice(k, k === K - 1 ? TO_THE_END : k + 1 - K), tap]));
      sum = products.reduce((a, b) => g.op("Add", [a, b]));
    }
    if (bias) sum = g.op("Add", [sum, g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`), dtype))]);
    return { value: silu(lowering, sum), dtype, width };
  },

  kernels: kernel,
  cuda: kernel,
});

function kernel(lowering: Lowering, inputs: CausalConvInputs, width: number): Operand {
  const { graph: g, weight, lengths } = lowering;
  const { x, state, name, numTaps, bias: hasBias } = inputs;
  const past = pastState(lowering, state);
  const taps = g.initializer(`${name}.taps`, transposedTensor(weight(`${name}.weight`), [width, numTaps]));
  const bias = hasBias ? g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`))) : undefined;
  const [u, present] = kernelNode(lowering, "CausalConv", [x, past, taps, bias, lengths], 2);
  presentState(lowering, state, present!);
  return { value: u!, dtype: "f32", width };
}
