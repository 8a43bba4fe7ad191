/** The short causal convolution before the scan, with its state. Twin: `causalConv` in model/reference.ts. */
import { type MambaConfig, mixer } from "../../model/families/mamba.ts";
import type { Value } from "../../onnx/graph.ts";
import type { Lowering } from "../lowering.ts";
import { vectorTensor } from "../matrix.ts";

/**
 * u = SiLU(Σ_k w_k ⊙ uRaw_{t-K+1+k} + b): [B,T,E] -> [B,T,E]. Reads `past_conv.<layer>`, writes `present_conv.<layer>`,
 * both [B,K-1,E]. One node reads the one and writes the other, channel by channel, so the two may be one buffer.
 */
export function causalConv({ graph: g, weight }: Lowering, config: MambaConfig, layer: number, uRaw: Value): Value {
  const { dInner: E, convKernel: K } = config;
  const name = `${mixer(layer)}.conv1d`;
  const past = g.input(`past_conv.${layer}`, "f32", ["B", K - 1, E]);
  const taps = g.initializer(`${name}.weight`, vectorTensor(weight(`${name}.weight`)));
  const bias = config.useConvBias ? g.initializer(`${name}.bias`, vectorTensor(weight(`${name}.bias`))) : undefined;
  const [u, present] = g.ops("com.microsoft.CausalConvWithState", [uRaw, taps, bias, past], 2, {
    activation: "silu",
    channels_last: 1,
  }) as [Value, Value];
  g.output(`present_conv.${layer}`, present, "f32", ["B", K - 1, E]);
  return u;
}
