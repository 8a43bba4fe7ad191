/**
 * What every architecture has around its layers: the embedding, the residual stream with a norm
 * before each branch, the head, and what sampling needs of the logits.
 */
import type { Value } from "../onnx/graph.ts";
import type { Lowering } from "./lowering.ts";
import { sizes } from "./onnx.ts";
import { embedRows } from "./operators/embed-rows.ts";
import { linear } from "./operators/linear.ts";
import { type NormWeights, norm } from "./operators/norm.ts";
import { type Operand, toValue } from "./operators/operand.ts";
import { sampleStatistics } from "./operators/sample-statistics.ts";

/** Names are those of tensors without `.weight`. */
export interface Decoder {
  readonly embedding: string;
  /** Of the embedding, before the first layer. */
  readonly embeddingNorm?: NormWeights;
  readonly layers: readonly (readonly Branch[])[];
  readonly finalNorm: NormWeights;
  /** Of a tied head: the embedding's. */
  readonly head: string;
}

/** stream += branch(norm(stream)) */
export interface Branch {
  readonly norm: NormWeights;
  readonly branch: (x: Operand) => Operand;
}

/**
 * The residual stream, [B,T,D], in f32 whatever the branches compute in: it adds up over all of
 * them.
 */
interface Stream {
  readonly sum: Operand;
  /** The last branch's output, not yet added: the next norm adds it in the same pass. */
  readonly pending?: Operand;
}

export function lowerDecoder(lowering: Lowering, decoder: Decoder): void {
  const { graph: g } = lowering;
  const logitRows = g.input("logit_rows", "i64", ["R"]);
  const temperature = g.input("temperature", "f32", ["R"]);

  let stream: Stream = { sum: embedRows(lowering, decoder.embedding) };
  if (decoder.embeddingNorm) stream = { sum: normOf(lowering, stream, decoder.embeddingNorm).normed };
  for (const [layer, branches] of decoder.layers.entries()) {
    g.scoped(`layers.${layer}`, () => {
      for (const { norm, branch } of branches) {
        const { normed, sum } = normOf(lowering, stream, norm);
        stream = { sum, pending: branch(normed) };
      }
    });
  }
  g.scoped("head", () => {
    const logits = lowerHead(lowering, decoder, stream, logitRows);
    sampleStatistics(lowering, { logits, temperature });
  });
}

function normOf(lowering: Lowering, { sum, pending }: Stream, weights: NormWeights) {
  return norm(lowering, { ...weights, x: sum, added: pending, dtype: "f32" });
}

/**
 * The requested rows of the stream, picked before the norm and the head, the largest matrix of a
 * small model: a chunk of a prompt that asks for none pays for none. Their hidden states, f32 [R,D],
 * and logits, f32 [R,V].
 */
function lowerHead(lowering: Lowering, { finalNorm, head }: Decoder, stream: Stream, logitRows: Value): Operand {
  const { graph: g } = lowering;
  const pick = (x: Operand): Operand => ({
    value: g.op("Gather", [g.op("Reshape", [toValue(lowering, x), sizes(g, -1, x.width)]), logitRows]),
    dtype: x.dtype,
    width: x.width,
  });
  const { sum, pending } = stream;
  const picked = { sum: pick(sum), ...(pending && { pending: pick(pending) }) };
  const { normed } = normOf(lowering, picked, finalNorm);
  g.output("hidden", toValue(lowering, normed, "f32"), "f32", ["R", normed.width]);
  const logits = linear(lowering, normed, head, { role: "table" });
  const value = toValue(lowering, logits, "f32");
  g.output("logits", value, "f32", ["R", logits.width]);
  return { value, dtype: "f32", width: logits.width };
}
