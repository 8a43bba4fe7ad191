/**
 * The oracle of Mamba and DenseMamba, written to be compared with the papers. Each block has a twin
 * of the same name in `compiler/operators/`.
 *
 * Symbols as in the glossary of `compiler/compile.ts`: V vocabulary, D hidden size, E channels, N
 * state size, R rank of the step size, K taps, m links; u the convolved input, z the output gate, Δ
 * the step size, h^l layer l's carried state.
 */
import { type MambaConfig, mixer } from "../families/mamba.ts";
import {
  addTo,
  matVec,
  type Oracle,
  type OracleStep,
  type ReadWeight,
  type ReferenceState,
  rmsNorm,
  silu,
  softplus,
  type Vector,
} from "./math.ts";

/** States: `conv.<l>` [K-1,E], `ssm.<l>` [N,E]. */
export class MambaOracle implements Oracle {
  readonly #config: MambaConfig;
  readonly #weight: ReadWeight;

  constructor(config: MambaConfig, weight: ReadWeight) {
    this.#config = config;
    this.#weight = weight;
  }

  step(tokenId: number, state: ReferenceState): OracleStep {
    const config = this.#config;
    const residual = this.embed(tokenId, config);
    const histories: Vector[] = [];
    for (let layer = 0; layer < config.numLayers; layer++) {
      const x = rmsNorm(residual, this.#weight(`backbone.layers.${layer}.norm.weight`), config.normEpsilon);
      addTo(residual, this.#mixer(config, layer, x, state, histories));
    }
    const hidden = rmsNorm(residual, this.#weight("backbone.norm_f.weight"), config.normEpsilon);
    return {
      hidden,
      logits: matVec(this.#weight(`${config.tieEmbeddings ? config.embedding : "lm_head"}.weight`), hidden),
    };
  }

  /** [D] */
  embed(tokenId: number, { hiddenSize: D, embedding }: MambaConfig): Vector {
    return this.#weight(`${embedding}.weight`).slice(tokenId * D, (tokenId + 1) * D);
  }

  /**
   * x [D] is normalised. Appends this layer's new h to `histories`, which holds those of the layers
   * before it.
   */
  #mixer(config: MambaConfig, layer: number, x: Vector, state: ReferenceState, histories: Vector[]): Vector {
    const { dInner: E } = config;
    const name = mixer(layer);
    const projected = this.#linear(x, `${name}.in_proj`, config.useBias);
    const uRaw = projected.subarray(0, E);
    const z = projected.subarray(E);

    const u = this.causalConv(config, layer, uRaw, state);
    const { delta, B, C } = this.selectiveParameters(config, layer, u);
    const h = this.selectiveScan(config, layer, { u, delta, B }, state);
    const y = denseReadout(config, h, C, this.denseGates(config, layer, x), (i) => histories[layer - i]!);
    histories.push(h);

    const skip = this.#weight(`${name}.D`);
    const gated = y.map((value, e) => (value + skip[e]! * u[e]!) * silu(z[e]!));
    return this.#linear(gated, `${name}.out_proj`, config.useBias);
  }

  /** u = SiLU(Σ_k w_k ⊙ uRaw_{t-K+1+k} + b), [E]. Shifts `conv.<layer>` by this step's input. */
  causalConv(config: MambaConfig, layer: number, uRaw: Vector, state: ReferenceState): Vector {
    const { dInner: E, convKernel: K, useConvBias } = config;
    const past = state.get(`conv.${layer}`)!;
    const taps = this.#weight(`${mixer(layer)}.conv1d.weight`);
    const bias = useConvBias ? this.#weight(`${mixer(layer)}.conv1d.bias`) : undefined;
    const window = Float32Array.of(...past, ...uRaw); // [K,E], this step last
    past.set(window.subarray(E));
    return new Float32Array(E).map((_, e) => {
      let sum = bias?.[e] ?? 0;
      for (let k = 0; k < K; k++) sum += taps[e * K + k]! * window[k * E + e]!;
      return silu(sum);
    });
  }

  /**
   * [dt, B, C] = W_x u, each normalised in a Falcon-Mamba; Δ = softplus(W_dt dt + b). Δ [E], B and
   * C [N].
   */
  selectiveParameters(config: MambaConfig, layer: number, u: Vector): { delta: Vector; B: Vector; C: Vector } {
    const { timeStepRank: R, stateSize: N, parameterNormEpsilon: epsilon } = config;
    const name = mixer(layer);
    const projected = this.#linear(u, `${name}.x_proj`, false);
    const [dt, B, C] = [projected.subarray(0, R), projected.subarray(R, R + N), projected.subarray(R + N)].map(
      (part) => (epsilon === undefined ? part : rmsNorm(part, new Float32Array(part.length).fill(1), epsilon)),
    ) as [Vector, Vector, Vector];
    return { delta: this.#linear(dt, `${name}.dt_proj`, true).map(softplus), B, C };
  }

  /**
   * h_t = exp(Δ A) ⊙ h_{t-1} + (Δ u) ⊗ B, [N,E], A = -exp(A_log). Replaces `ssm.<layer>`; nothing
   * is fused into it.
   */
  selectiveScan(
    config: MambaConfig,
    layer: number,
    { u, delta, B }: { readonly u: Vector; readonly delta: Vector; readonly B: Vector },
    state: ReferenceState,
  ): Vector {
    const { dInner: E, stateSize: N } = config;
    const aLog = this.#weight(`${mixer(layer)}.A_log`); // [E,N]
    const h = state.get(`ssm.${layer}`)!;
    for (let n = 0; n < N; n++) {
      for (let e = 0; e < E; e++) {
        const decay = Math.exp(delta[e]! * -Math.exp(aLog[e * N + n]!));
        h[n * E + e] = decay * h[n * E + e]! + delta[e]! * u[e]! * B[n]!;
      }
    }
    return h;
  }

  /** G = SiLU(W2 · SiLU(W1 · x)): one [E] per link, for layers l-1, l-2, …; none without links. */
  denseGates(config: MambaConfig, layer: number, x: Vector): Vector[] {
    const gate = config.gates[layer];
    if (gate === undefined) return [];
    const name = `${mixer(layer)}.select`;
    const hidden = this.#linear(x, `${name}.fc1`, false).map(silu);
    const gates = this.#linear(hidden, `${name}.fc2`, false).map(silu);
    const { dInner: E } = config;
    return Array.from({ length: gate.numLinks }, (_, i) =>
      gate.numGates === 1 ? gates : gates.subarray(i * E, (i + 1) * E),
    );
  }

  #linear(x: Vector, name: string, hasBias: boolean): Vector {
    const y = matVec(this.#weight(`${name}.weight`), x);
    if (!hasBias) return y;
    const bias = this.#weight(`${name}.bias`);
    return y.map((value, i) => value + bias[i]!);
  }
}

/**
 * C · ĥ with ĥ = h + Σ_i G_i ⊙ h^{l-i}: [E]. The shallower states are those of this time step,
 * before their own fusion. Built here as the paper writes it; the compiler reads each state out
 * first and fuses the readouts.
 */
export function denseReadout(
  { dInner: E, stateSize: N }: MambaConfig,
  h: Vector,
  C: Vector,
  gates: readonly Vector[],
  historyOf: (i: number) => Vector,
): Vector {
  const fused = h.slice();
  for (const [index, gate] of gates.entries()) {
    const shallower = historyOf(index + 1);
    for (let i = 0; i < fused.length; i++) fused[i]! += gate[i % E]! * shallower[i]!;
  }
  const y = new Float32Array(E);
  for (let n = 0; n < N; n++) for (let e = 0; e < E; e++) y[e]! += C[n]! * fused[n * E + e]!;
  return y;
}
