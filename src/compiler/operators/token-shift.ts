/**
 * TokenShift: of each step's x and that of the step before, mixtures x_t + (x_{t-1} - x_t) ⊙ share,
 * as many as are asked for, with the state that holds the last x. Twin: `tokenShift` in
 * model/reference/rwkv7.ts.
 */
import assert from "node:assert/strict";
import type { Lowering } from "../lowering.ts";
import { vectorTensor } from "../matrix.ts";
import { sizes, TO_THE_END } from "../onnx.ts";
import { pastState, presentState } from "../states.ts";
import { kernelNode, type Operand, toValue } from "./operand.ts";
import { operator } from "./operator.ts";

export interface TokenShiftInputs {
  readonly x: Operand;
  /** Name of the state [1,width]: the last x. */
  readonly state: string;
  /** Names of tensors [width], one a mixture. */
  readonly shares: readonly string[];
}

/** Of the kernel's outputs, which are eight, one is the state. */
const MAX_MIXTURES = 7;

export const tokenShift = operator<TokenShiftInputs, Operand[]>({
  name: "TokenShift",
  looksAlongTime: true,
  width({ x: { width }, state, shares }) {
    assert(shares.length > 0, `${state}: no mixtures`);
    return width;
  },

  /**
   * The past is read by `Concat` alone and the present is cut from its result, so the two may be
   * one buffer.
   */
  plain(lowering, { x, state, shares }, width) {
    const { graph: g, weight, float: dtype } = lowering;
    const own = toValue(lowering, x, dtype);
    const window = g.op("Concat", [pastState(lowering, state, dtype), own], { axis: 1 });
    const slice = (from: number, to: number) => g.op("Slice", [window, sizes(g, from), sizes(g, to), sizes(g, 1)]);
    presentState(lowering, state, slice(-1, TO_THE_END), dtype);
    const change = g.op("Sub", [slice(0, -1), own]);
    return shares.map((name) => {
      const share = g.initializer(name, vectorTensor(weight(name), dtype));
      return { value: g.op("Add", [own, g.op("Mul", [change, share])]), dtype, width };
    });
  },

  kernels: kernel,
  cuda: kernel,
});

function kernel(lowering: Lowering, { x, state, shares }: TokenShiftInputs, width: number): Operand[] | undefined {
  if (shares.length > MAX_MIXTURES) return undefined;
  const { graph: g, weight, lengths } = lowering;
  const rows = shares.map((name) => vectorTensor(weight(name)));
  const chunks = () => rows.flatMap((row) => [...row.chunks()]);
  const mix = g.initializer(`${state}.shares`, { dtype: "f32", shape: [shares.length, width], chunks });
  const operands = [x, pastState(lowering, state), mix, lengths];
  const [present, ...mixed] = kernelNode(lowering, "TokenShift", operands, 1 + shares.length);
  presentState(lowering, state, present!);
  return mixed.map((value) => ({ value, dtype: "f32", width }));
}
