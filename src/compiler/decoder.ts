/**
 * What every architecture has around its layers: token ids in, the residual stream with a norm before each layer, the
 * head, and what sampling needs of the logits.
 */
import type { Value } from "../onnx/graph.ts";
import { embed } from "./blocks/embed.ts";
import { type Head, logits, sampleStatistics } from "./blocks/logits.ts";
import { addRmsNorm, rmsNorm } from "./blocks/rms-norm.ts";
import { type Lowering, narrowed, widened } from "./lowering.ts";

/** Sizes, and the names of tensors without `.weight`. */
export interface Decoder extends Head {
  readonly numLayers: number;
  readonly embedding: string;
  readonly layerNorm: (layer: number) => string;
}

/** A layer's output for its normalised input, [B,T,D] each, of the lowering's type; the residual is added outside. */
export type LayerLowering = (x: Value, layer: number) => Value;

/** `start` lowers what the layers share, and gives the layers. */
export function lowerDecoder(lowering: Lowering, decoder: Decoder, start: (tokenIds: Value) => LayerLowering): void {
  const { graph: g, weight } = lowering;
  const shape = lowering.lengths ? [1, "S"] : ["B", lowering.steps === "one" ? 1 : "T"];
  const tokenIds = g.input("input_ids", "i64", shape);
  const logitRows = g.input("logit_rows", "i64", ["R"]);
  const temperature = g.input("temperature", "f32", ["R"]);
  const lowerLayer = start(tokenIds);

  // In f32 whatever the layers compute in: it adds up over all of them.
  let sum = embed(lowering, tokenIds, decoder.embedding);
  /** The last layer's output, not yet added: the next norm adds it in the same pass. */
  let pending: Value | undefined;
  for (let layer = 0; layer < decoder.numLayers; layer++) {
    g.scoped(`layers.${layer}`, () => {
      const normWeight = weight(`${decoder.layerNorm(layer)}.weight`);
      let x: Value;
      if (pending === undefined) x = rmsNorm(lowering, sum, normWeight, decoder.normEpsilon, "f32");
      else [x, sum] = addRmsNorm(lowering, sum, widened(lowering, pending), normWeight, decoder.normEpsilon, "f32");
      pending = lowerLayer(narrowed(lowering, x), layer);
    });
  }
  g.scoped("head", () => {
    const result = logits(lowering, decoder, { sum, pending: pending! }, logitRows);
    sampleStatistics(lowering, decoder.vocabSize, result, temperature);
  });
}
