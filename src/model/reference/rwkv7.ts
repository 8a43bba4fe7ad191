/**
 * The oracle of RWKV-7 in its recurrent form, written to be compared with its authors' code. Each
 * block has a twin of the same name in `compiler/operators/`.
 *
 * Symbols: H heads of N channels, D = H·N in all; r what is read, k and v key and value, w decay, κ
 * the direction that is removed, a how much of it, g the output gate; S [N,N] a head's state, [key,
 * value].
 */
import { channelMix, MIXED_INPUTS, type Rwkv7Config, timeMix } from "../families/rwkv7.ts";
import {
  addTo,
  layerNorm,
  linear,
  matVec,
  type Oracle,
  type OracleStep,
  type ReadWeight,
  type ReferenceState,
  sigmoid,
  type Vector,
} from "./math.ts";

type Mixed = Readonly<Record<(typeof MIXED_INPUTS)[number], Vector>>;

/** What a step does to the states: [D] each. */
export interface Rwkv7Step {
  readonly r: Vector;
  readonly w: Vector;
  readonly k: Vector;
  readonly v: Vector;
  /** Of length 1 in each head. */
  readonly kappa: Vector;
  readonly a: Vector;
}

/** States: `att_shift.<l>` and `ffn_shift.<l>` [1,D], `wkv.<l>` [H,N,N]. */
export class Rwkv7Oracle implements Oracle {
  readonly #config: Rwkv7Config;
  readonly #weight: ReadWeight;

  constructor(config: Rwkv7Config, weight: ReadWeight) {
    this.#config = config;
    this.#weight = weight;
  }

  step(tokenId: number, state: ReferenceState): OracleStep {
    const { hiddenSize: D, numLayers } = this.#config;
    const row = this.#weight("model.embeddings.weight").slice(tokenId * D, (tokenId + 1) * D);
    const residual = this.#norm(row, "model.layers.0.pre_norm");
    /** The first layer's value, of which the others take a share. */
    let firstValue: Vector | undefined;
    for (let layer = 0; layer < numLayers; layer++) {
      const attention = this.#norm(residual, `model.layers.${layer}.attn_norm`);
      const { out, v } = this.#timeMix(layer, attention, state, firstValue);
      firstValue ??= v;
      addTo(residual, out);
      const forward = this.#norm(residual, `model.layers.${layer}.ffn_norm`);
      addTo(residual, this.#channelMix(layer, forward, state.get(`ffn_shift.${layer}`)!));
    }
    const hidden = this.#norm(residual, "model.norm");
    return { hidden, logits: matVec(this.#weight("lm_head.weight"), hidden) };
  }

  /** x [D] is normalised. */
  #timeMix(
    layer: number,
    x: Vector,
    state: ReferenceState,
    firstValue: Vector | undefined,
  ): { out: Vector; v: Vector } {
    const name = timeMix(layer);
    const last = state.get(`att_shift.${layer}`)!;
    const shifted = MIXED_INPUTS.map((input) => [input, this.tokenShift(x, last, `${name}.x_${input}`)] as const);
    last.set(x);
    const mixed = Object.fromEntries(shifted) as unknown as Mixed;
    const { step, g } = this.#stepInputs(layer, mixed, firstValue);
    const y = this.recurrence(step, state.get(`wkv.${layer}`)!);
    return { out: linear(this.#weight, this.gatedHeadNorm(layer, y, step, g), `${name}.o_proj`), v: step.v };
  }

  /** x + (last - x) ⊙ share */
  tokenShift(x: Vector, last: Vector, name: string): Vector {
    const share = this.#weight(name);
    return x.map((value, i) => value + (last[i]! - value) * share[i]!);
  }

  #stepInputs(layer: number, x: Mixed, firstValue: Vector | undefined): { step: Rwkv7Step; g: Vector } {
    const { headDim: N } = this.#config;
    const name = timeMix(layer);
    const r = linear(this.#weight, x.r, `${name}.r_proj`);
    const key = linear(this.#weight, x.k, `${name}.k_proj`);
    const value = linear(this.#weight, x.v, `${name}.v_proj`);
    const w = this.lowRank(layer, "w", x.w, Math.tanh).map((d) => Math.exp(-Math.exp(-0.5) * sigmoid(d)));
    const a = this.lowRank(layer, "a", x.a).map(sigmoid);
    const g = this.lowRank(layer, "g", x.g, sigmoid);

    const direction = this.#weight(`${name}.k_k`);
    const kappa = normalizedHeads(
      key.map((k, i) => k * direction[i]!),
      N,
    );
    const share = this.#weight(`${name}.k_a`);
    const k = key.map((value_, i) => value_ * (1 + (a[i]! - 1) * share[i]!));
    if (firstValue === undefined) return { step: { r, w, k, v: value, kappa, a }, g };
    const taken = this.lowRank(layer, "v", x.v).map(sigmoid);
    const v = value.map((own, i) => own + (firstValue[i]! - own) * taken[i]!);
    return { step: { r, w, k, v, kappa, a }, g };
  }

  /** W2 f(W1 x) + b: [D]. The gate has no b. */
  lowRank(layer: number, which: "w" | "a" | "v" | "g", x: Vector, f = (inner: number) => inner): Vector {
    const name = `${timeMix(layer)}.${which}_lora.lora`;
    const inner = linear(this.#weight, x, `${name}.0`).map(f);
    return linear(this.#weight, inner, `${name}.2`, { hasBias: which !== "g" });
  }

  /**
   * S = w S - (κ ⊙ a) ⊗ (κ S) + k ⊗ v, then y = r S: [D]. Decay, removal and key are along the
   * state's first axis. `S` [H,N,N] is advanced in place.
   */
  recurrence({ r, w, k, v, kappa, a }: Rwkv7Step, S: Vector): Vector {
    const { numHeads: H, headDim: N } = this.#config;
    const y = new Float32Array(H * N);
    for (let h = 0; h < H; h++) {
      for (let j = 0; j < N; j++) {
        const at = (i: number) => (h * N + i) * N + j;
        let removed = 0;
        for (let i = 0; i < N; i++) removed += kappa[h * N + i]! * S[at(i)]!;
        let sum = 0;
        for (let i = 0; i < N; i++) {
          const c = h * N + i;
          S[at(i)] = w[c]! * S[at(i)]! - kappa[c]! * a[c]! * removed + k[c]! * v[h * N + j]!;
          sum += r[c]! * S[at(i)]!;
        }
        y[h * N + j] = sum;
      }
    }
    return y;
  }

  /** (norm of each head of y + (r · (k ⊙ r_k)) v) ⊙ g: [D]. */
  gatedHeadNorm(layer: number, y: Vector, { r, k, v }: Rwkv7Step, g: Vector): Vector {
    const { numHeads: H, headDim: N, groupNormEpsilon } = this.#config;
    const name = timeMix(layer);
    const [weight, bias] = [this.#weight(`${name}.g_norm.weight`), this.#weight(`${name}.g_norm.bias`)];
    const bonus = this.#weight(`${name}.r_k`);
    const out = new Float32Array(H * N);
    for (let h = 0; h < H; h++) {
      const head = (x: Vector) => x.subarray(h * N, (h + 1) * N);
      const normed = layerNorm(head(y), head(weight), head(bias), groupNormEpsilon);
      let share = 0;
      for (let c = h * N; c < (h + 1) * N; c++) share += r[c]! * k[c]! * bonus[c]!;
      for (let i = 0; i < N; i++) out[h * N + i] = (normed[i]! + share * v[h * N + i]!) * g[h * N + i]!;
    }
    return out;
  }

  /** W_v relu(W_k x̂)². `last` becomes x. */
  #channelMix(layer: number, x: Vector, last: Vector): Vector {
    const name = channelMix(layer);
    const mixed = this.tokenShift(x, last, `${name}.x_k`);
    last.set(x);
    const hidden = linear(this.#weight, mixed, `${name}.key`).map((value) => Math.max(value, 0) ** 2);
    return linear(this.#weight, hidden, `${name}.value`);
  }

  #norm(x: Vector, name: string): Vector {
    return layerNorm(x, this.#weight(`${name}.weight`), this.#weight(`${name}.bias`), this.#config.normEpsilon);
  }
}

/** Each head of x divided by its length. */
function normalizedHeads(x: Vector, headDim: number): Vector {
  const out = new Float32Array(x.length);
  for (let start = 0; start < x.length; start += headDim) {
    const head = x.subarray(start, start + headDim);
    const length = Math.max(Math.sqrt(head.reduce((sum, value) => sum + value * value, 0)), 1e-12);
    out.set(
      head.map((value) => value / length),
      start,
    );
  }
  return out;
}
