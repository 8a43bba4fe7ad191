/**
 * The oracle of Mamba-2 in its recurrent form, written to be compared with the paper. Each block
 * has a twin of the same name in `compiler/operators/`.
 *
 * Symbols: H heads of P channels, E = H·P in all; N numbers a channel remembers; G groups of heads
 * that share B and C; K taps; x the convolved input, z the gate, Δ a head's step size, S [N,P] a
 * head's state.
 */

import { mixer } from "../families/mamba.ts";
import { type Mamba2Config, projectionWidths } from "../families/mamba2.ts";
import {
  addTo,
  linear,
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

/** States: `conv.<l>` [K-1,E+2GN], `ssm.<l>` [H,N,P]. */
export class Mamba2Oracle implements Oracle {
  readonly #config: Mamba2Config;
  readonly #weight: ReadWeight;

  constructor(config: Mamba2Config, weight: ReadWeight) {
    this.#config = config;
    this.#weight = weight;
  }

  step(tokenId: number, state: ReferenceState): OracleStep {
    const { hiddenSize: D, numLayers, normEpsilon, tieEmbeddings } = this.#config;
    const residual = this.#weight("backbone.embeddings.weight").slice(tokenId * D, (tokenId + 1) * D);
    for (let layer = 0; layer < numLayers; layer++) {
      const x = rmsNorm(residual, this.#weight(`backbone.layers.${layer}.norm.weight`), normEpsilon);
      addTo(residual, this.#mixer(layer, x, state));
    }
    const hidden = rmsNorm(residual, this.#weight("backbone.norm_f.weight"), normEpsilon);
    const head = this.#weight(tieEmbeddings ? "backbone.embeddings.weight" : "lm_head.weight");
    return { hidden, logits: matVec(head, hidden) };
  }

  /** x [D] is normalised. */
  #mixer(layer: number, x: Vector, state: ReferenceState): Vector {
    const config = this.#config;
    const name = mixer(layer);
    const projected = linear(this.#weight, x, `${name}.in_proj`, { hasBias: config.useBias });
    const { gate, conv } = projectionWidths(config);
    const z = projected.subarray(0, gate);
    const convolved = this.causalConv(layer, projected.subarray(gate, gate + conv), state.get(`conv.${layer}`)!);
    const y = this.recurrence(layer, convolved, projected.subarray(gate + conv), state.get(`ssm.${layer}`)!);
    return linear(this.#weight, this.gatedNorm(layer, y, z), `${name}.out_proj`, { hasBias: config.useBias });
  }

  /**
   * SiLU(Σ_k w_k ⊙ input_{t-K+1+k} + b), [E+2GN]. Shifts `past` [K-1,E+2GN] by this step's input.
   */
  causalConv(layer: number, input: Vector, past: Vector): Vector {
    const { convKernel: K, useConvBias } = this.#config;
    const width = input.length;
    const taps = this.#weight(`${mixer(layer)}.conv1d.weight`);
    const bias = useConvBias ? this.#weight(`${mixer(layer)}.conv1d.bias`) : undefined;
    const window = Float32Array.of(...past, ...input); // [K,width], this step last
    past.set(window.subarray(width));
    return new Float32Array(width).map((_, c) => {
      let sum = bias?.[c] ?? 0;
      for (let k = 0; k < K; k++) sum += taps[c * K + k]! * window[k * width + c]!;
      return silu(sum);
    });
  }

  /**
   * Δ = clamp(softplus(dt + dt_bias)); S = exp(-exp(A_log) Δ) S + B ⊗ Δ x; y = C S + D x, [E].
   * `convolved` is [x, B, C], and replaces nothing; `S` [H,N,P] is advanced in place.
   */
  recurrence(layer: number, convolved: Vector, dt: Vector, S: Vector): Vector {
    const { numHeads: H, headDim: P, stateSize: N, numGroups: G, timeStepLimit } = this.#config;
    const [aLog, dtBias, skip] = ["A_log", "dt_bias", "D"].map((part) => this.#weight(`${mixer(layer)}.${part}`));
    const E = H * P;
    const y = new Float32Array(E);
    for (let h = 0; h < H; h++) {
      const delta = Math.min(Math.max(softplus(dt[h]! + dtBias![h]!), timeStepLimit[0]), timeStepLimit[1]);
      const decay = Math.exp(-Math.exp(aLog![h]!) * delta);
      const group = Math.floor((h * G) / H);
      const B = convolved.subarray(E + group * N, E + (group + 1) * N);
      const C = convolved.subarray(E + (G + group) * N, E + (G + group + 1) * N);
      for (let p = 0; p < P; p++) {
        const x = convolved[h * P + p]!;
        let sum = skip![h]! * x;
        for (let n = 0; n < N; n++) {
          const at = (h * N + n) * P + p;
          S[at] = decay * S[at]! + B[n]! * delta * x;
          sum += C[n]! * S[at]!;
        }
        y[h * P + p] = sum;
      }
    }
    return y;
  }

  /** RMSNorm(y ⊙ SiLU(z)), each group's channels by themselves: [E]. */
  gatedNorm(layer: number, y: Vector, z: Vector): Vector {
    const { numGroups, normEpsilon } = this.#config;
    const weight = this.#weight(`${mixer(layer)}.norm.weight`);
    const gated = y.map((value, e) => value * silu(z[e]!));
    const width = gated.length / numGroups;
    const out = new Float32Array(gated.length);
    for (let start = 0; start < gated.length; start += width) {
      const end = start + width;
      out.set(rmsNorm(gated.subarray(start, end), weight.subarray(start, end), normEpsilon), start);
    }
    return out;
  }
}
