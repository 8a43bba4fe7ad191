/** One vector for a prompt, from the hidden states behind its tokens. */

/** `last`: the state behind the last token. `mean`: of the states behind all tokens. */
export type Pooling = "last" | "mean";

/** The mean of the states that are added: with `last` there is one. */
export class PooledStates {
  #sum: Float64Array | undefined;
  #count = 0;

  /** [D], which is read and not kept. */
  add(hidden: Float32Array): void {
    this.#sum ??= new Float64Array(hidden.length);
    for (let i = 0; i < hidden.length; i++) this.#sum[i]! += hidden[i]!;
    this.#count++;
  }

  /** [D] */
  get mean(): Float32Array {
    return Float32Array.from(this.#sum ?? [], (sum) => sum / this.#count);
  }
}
