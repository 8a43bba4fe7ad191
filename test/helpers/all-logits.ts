import type { RunOutput } from "../../src/runtime/runner.ts";

/** [R, V]: a copy of every row's logits. */
export function allLogits({ numRows, vocabSize, logitsOf }: RunOutput): Float32Array<ArrayBuffer> {
  const logits = new Float32Array(numRows * vocabSize);
  for (let row = 0; row < numRows; row++) logits.set(logitsOf(row), row * vocabSize);
  return logits;
}
