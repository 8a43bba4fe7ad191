/**
 * Mamba-2: the order of its operators, and what passes between them. Twin:
 * `model/reference/mamba2.ts`, which has the symbols.
 */

import { mixer } from "../model/families/mamba.ts";
import { type Mamba2Config, projectionWidths } from "../model/families/mamba2.ts";
import { lowerDecoder } from "./decoder.ts";
import type { Lowering } from "./lowering.ts";
import { causalConv } from "./operators/causal-conv.ts";
import { linear } from "./operators/linear.ts";
import { norm } from "./operators/norm.ts";
import { type Operand, parts } from "./operators/operand.ts";
import { stateSpace } from "./operators/state-space.ts";

export function lowerMamba2(lowering: Lowering, config: Mamba2Config): void {
  const embedding = "backbone.embeddings";
  lowerDecoder(lowering, {
    embedding,
    layers: Array.from({ length: config.numLayers }, (_, layer) => [
      {
        norm: normWeights(lowering, config, `backbone.layers.${layer}.norm`),
        branch: (x) => mamba2Mixer(lowering, config, layer, x),
      },
    ]),
    finalNorm: normWeights(lowering, config, "backbone.norm_f"),
    head: config.tieEmbeddings ? embedding : "lm_head",
  });
}

function normWeights({ weight }: Lowering, { normEpsilon: epsilon }: Mamba2Config, name: string) {
  return { weight: weight(`${name}.weight`), epsilon };
}

/** The mixer's output for its normalised input x. */
function mamba2Mixer(lowering: Lowering, config: Mamba2Config, layer: number, x: Operand): Operand {
  const { stateSize: N, numGroups: G, convKernel, useBias, useConvBias, timeStepLimit } = config;
  const name = mixer(layer);
  const { gate, conv, dt: H } = projectionWidths(config);
  const projected = linear(lowering, x, `${name}.in_proj`, { bias: useBias });
  const [z, mixed, dt] = parts(projected, [gate, conv, H]) as [Operand, Operand, Operand];
  const convolved = causalConv(lowering, {
    x: mixed,
    state: `conv.${layer}`,
    name: `${name}.conv1d`,
    numTaps: convKernel,
    bias: useConvBias,
  });
  const [u, B, C] = parts(convolved, [gate, G * N, G * N]) as [Operand, Operand, Operand];
  const y = stateSpace(lowering, { x: u, B, C, dt, groups: G, timeStepLimit, name, state: `ssm.${layer}` });
  const { normed } = norm(lowering, {
    ...normWeights(lowering, config, `${name}.norm`),
    ...{ x: y, groups: G, dtype: lowering.float },
    gate: { by: z, place: "before" },
  });
  return linear(lowering, normed, `${name}.out_proj`, { bias: useBias });
}
