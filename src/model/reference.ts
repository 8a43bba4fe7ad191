/**
 * The oracle: a model's forward pass in f32 on plain arrays, one sequence, one step at a time,
 * written to be compared with the papers and not to be fast. One file an architecture in
 * `reference/`, its blocks named as their twins in `compiler/operators/`.
 */
import type { Checkpoint } from "./checkpoint.ts";
import type { Architecture } from "./families/registry.ts";
import { MambaOracle } from "./reference/mamba.ts";
import { Mamba2Oracle } from "./reference/mamba2.ts";
import type { Oracle, ReadWeight, ReferenceState, Vector } from "./reference/math.ts";
import { RetNetOracle } from "./reference/retnet.ts";
import { Rwkv7Oracle } from "./reference/rwkv7.ts";
import { numElements } from "./state.ts";
import { readAll } from "./weights.ts";

export class ReferenceModel {
  readonly #checkpoint: Checkpoint;
  readonly #oracle: Oracle;
  readonly #weights = new Map<string, Vector>();

  /** Weights are read from the checkpoint, which must stay open, when first used, and kept. */
  constructor(checkpoint: Checkpoint) {
    this.#checkpoint = checkpoint;
    this.#oracle = oracleOf(checkpoint.architecture, (name) => this.#weight(name));
  }

  /** All zero: nothing has been read. */
  newState(): ReferenceState {
    return new Map(
      this.#checkpoint.state.map(({ name, shape }) => [name, new Float32Array(numElements(shape))] as const),
    );
  }

  /** Logits [T][V] that follow each token. Advances `state` in place. */
  forward(tokenIds: readonly number[], state: ReferenceState): Vector[] {
    return tokenIds.map((tokenId) => this.#oracle.step(tokenId, state).logits);
  }

  /** Hidden states [T][D] behind each token, which the logits are made of. Likewise. */
  hidden(tokenIds: readonly number[], state: ReferenceState): Vector[] {
    return tokenIds.map((tokenId) => this.#oracle.step(tokenId, state).hidden);
  }

  #weight(name: string): Vector {
    const known = this.#weights.get(name);
    if (known !== undefined) return known;
    const weight = readAll(this.#checkpoint.tensor(name));
    this.#weights.set(name, weight);
    return weight;
  }
}

function oracleOf(architecture: Architecture, weight: ReadWeight): Oracle {
  switch (architecture.kind) {
    case "mamba":
      return new MambaOracle(architecture, weight);
    case "mamba2":
      return new Mamba2Oracle(architecture, weight);
    case "retnet":
      return new RetNetOracle(architecture, weight);
    case "rwkv7":
      return new Rwkv7Oracle(architecture, weight);
  }
}
