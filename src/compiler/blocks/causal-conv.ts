/** The short causal convolution before the scan, with its state. Twin: `causalConv` in model/reference/mamba.ts. */
import { type MambaConfig, mixer } from "../../model/families/mamba.ts";
import type { Value } from "../../onnx/graph.ts";
import { type Lowering, silu, sizes } from "../lowering.ts";
import { transposedTensor, vectorTensor } from "../matrix.ts";
import { pastState, presentState } from "../states.ts";

const TO_THE_END = 2 ** 31 - 1;

/**
 * u = SiLU(Σ_k w_k ⊙ uRaw_{t-K+1+k} + b): [B,T,E] -> [B,T,E]. Reads `past_conv.<layer>`, writes `present_conv.<layer>`,
 * both [B,K-1,E], oldest first. The past is read by `Concat` alone and the present is cut from its result, so the two
 * may be one buffer.
 *
 * Plain operators, not `CausalConvWithState`: that kernel walks the channels one by one and takes 15 ns for each, four
 * times what these take together (docs/compiler.md).
 */
export function causalConv(lowering: Lowering, config: MambaConfig, layer: number, uRaw: Value): Value {
  const { graph: g, weight, steps, float } = lowering;
  const { dInner: E, convKernel: K } = config;
  const name = `${mixer(layer)}.conv1d`;
  const past = pastState(lowering, `conv.${layer}`, float);
  const window = g.op("Concat", [past, uRaw], { axis: 1 });
  const slice = (from: number, to: number) => g.op("Slice", [window, sizes(g, from), sizes(g, to), sizes(g, 1)]);
  presentState(lowering, `conv.${layer}`, slice(1 - K, TO_THE_END), float);

  const taps = transposedTensor(weight(`${name}.weight`), [E, K], { float });
  let sum: Value;
  if (steps === "one") {
    const products = g.op("Mul", [window, g.initializer(`${name}.taps`, taps)]);
    sum = g.op("ReduceSum", [products, sizes(g, 1)], { keepdims: 1 });
  } else {
    const rows = g.ops("Split", [g.initializer(`${name}.taps`, taps)], K, { axis: 0, num_outputs: K });
    const products = rows.map((tap, k) => g.op("Mul", [slice(k, k === K - 1 ? TO_THE_END : k + 1 - K), tap]));
    sum = products.reduce((a, b) => g.op("Add", [a, b]));
  }
  if (config.useConvBias) {
    sum = g.op("Add", [sum, g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`), float))]);
  }
  return silu(lowering, sum);
}

/** The same of the first half of xz [B,T,2E], through our own operator. */
export function ownCausalConv(lowering: Lowering, config: MambaConfig, layer: number, xz: Value): Value {
  const { graph: g, weight, lengths } = lowering;
  const { dInner: E, convKernel: K } = config;
  const name = `${mixer(layer)}.conv1d`;
  const past = pastState(lowering, `conv.${layer}`);
  const taps = g.initializer(`${name}.taps`, transposedTensor(weight(`${name}.weight`), [E, K]));
  const bias = config.useConvBias ? g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`))) : undefined;
  const [u, present] = g.ops("densemamba.CausalConv", [xz, past, taps, bias, lengths], 2) as [Value, Value];
  presentState(lowering, `conv.${layer}`, present);
  return u;
}
