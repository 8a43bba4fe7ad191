/**
 * The oracle of RetNet and DenseRetNet in its recurrent form, written to be compared with the
 * authors' code. Each block has a twin of the same name in `compiler/operators/`.
 *
 * Symbols: H heads; dk and dv, the widths of a head's key and value; q, k, v query, key and value,
 * g the output gate; γ a head's decay; S [dk,dv] a head's state; θ the angles of the rotation.
 */
import { attention, headDecays, POSITION_BASE, type RetNetConfig, rotationAngles } from "../families/retnet.ts";
import {
  addTo,
  matVec,
  type Oracle,
  type OracleStep,
  type ReadWeight,
  type ReferenceState,
  rmsNorm,
  silu,
  type Vector,
} from "./math.ts";

/** A layer's own keys [H·dk] and values [H·dv], before anything is fused into them or rotated. */
interface KeyValue {
  readonly k: Vector;
  readonly v: Vector;
}

/** States: `position` [2], `kv.<l>` [H,dk,dv]. */
export class RetNetOracle implements Oracle {
  readonly #config: RetNetConfig;
  readonly #weight: ReadWeight;

  constructor(config: RetNetConfig, weight: ReadWeight) {
    this.#config = config;
    this.#weight = weight;
  }

  step(tokenId: number, state: ReferenceState): OracleStep {
    const { hiddenSize: D, numLayers, normEpsilon, tieEmbeddings } = this.#config;
    const position = takePosition(state);
    const residual = this.#weight("model.embed_tokens.weight").slice(tokenId * D, (tokenId + 1) * D);
    const past: KeyValue[] = [];
    for (let layer = 0; layer < numLayers; layer++) {
      const x = rmsNorm(residual, this.#weight(`model.layers.${layer}.input_layernorm.weight`), normEpsilon);
      addTo(residual, this.#attention(layer, x, position, state, past));
    }
    const hidden = rmsNorm(residual, this.#weight("model.norm.weight"), normEpsilon);
    const head = this.#weight(tieEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    return { hidden, logits: matVec(head, hidden) };
  }

  /**
   * x [D] is normalised. Appends this layer's own key and value to `past`, which holds those of the
   * layers before it.
   */
  #attention(layer: number, x: Vector, position: number, state: ReferenceState, past: KeyValue[]): Vector {
    const { keyDim, valueDim, numHeads: H, normEpsilon } = this.#config;
    const name = attention(layer);
    const q = this.#linear(x, `${name}.q_proj`).map(silu);
    const scaling = (keyDim / H) ** -0.5;
    const k = this.#linear(x, `${name}.k_proj`).map((value) => silu(value) * scaling);
    const hidden = this.#linear(x, `${name}.to_hidden.0`).map(silu);
    const v = hidden.subarray(0, valueDim);
    const gate = hidden.subarray(valueDim);

    const fused = this.denseKeyValues(layer, x, { k, v }, past);
    past.push({ k, v });
    const y = this.retention(q, fused, position, state.get(`kv.${layer}`)!);

    const dv = valueDim / H;
    const groupNorm = this.#weight(`${name}.group_norm.weight`);
    const out = new Float32Array(valueDim);
    for (let h = 0; h < H; h++) out.set(rmsNorm(y.subarray(h * dv, (h + 1) * dv), groupNorm, normEpsilon), h * dv);
    return this.#linear(
      out.map((value, i) => value * gate[i]!),
      `${name}.to_out.0`,
    );
  }

  /** RMSNorm(k + Σ_i G ⊙ k^{l-i}), i = 1..min(m, l), and v likewise; as they are without links. */
  denseKeyValues(layer: number, x: Vector, { k, v }: KeyValue, past: readonly KeyValue[]): KeyValue {
    const { denseLayers: m, normEpsilon } = this.#config;
    if (this.#config.gates[layer] === undefined) return { k, v };
    const fuse = (which: "k" | "v", own: Vector) => {
      const gate = this.denseGate(layer, x, which);
      const sum = own.slice();
      for (const shallower of past.slice(-m)) {
        addTo(
          sum,
          shallower[which].map((value, i) => gate[i]! * value),
        );
      }
      return rmsNorm(sum, this.#weight(`${attention(layer)}.${which}_norm.weight`), normEpsilon);
    };
    return { k: fuse("k", k), v: fuse("v", v) };
  }

  /** G = SiLU(W2 · SiLU(W1 · x)), one for all links. */
  denseGate(layer: number, x: Vector, which: "k" | "v"): Vector {
    const name = `${attention(layer)}.${which}_select`;
    return this.#linear(this.#linear(x, `${name}.fc1`).map(silu), `${name}.fc2`).map(silu);
  }

  /**
   * S = γ S + k ⊗ v; y = q S / √scale, [H·dv], with q and k rotated by the position and scale = 1 +
   * γ + … + γ^position. The authors carry S / √scale instead; scale follows from the position
   * alone, so the readout is the same.
   */
  retention(q: Vector, { k, v }: KeyValue, position: number, S: Vector): Vector {
    const { keyDim, valueDim, numHeads: H } = this.#config;
    const dk = keyDim / H;
    const dv = valueDim / H;
    const qRotated = this.rotate(q, position);
    const kRotated = this.rotate(k, position);
    const y = new Float32Array(valueDim);
    for (const [h, decay] of headDecays(this.#config).entries()) {
      const normalizer = Math.sqrt((1 - decay) / (1 - decay ** (position + 1)));
      for (let j = 0; j < dv; j++) {
        let sum = 0;
        for (let i = 0; i < dk; i++) {
          const at = (h * dk + i) * dv + j;
          S[at] = decay * S[at]! + kRotated[h * dk + i]! * v[h * dv + j]!;
          sum += qRotated[h * dk + i]! * S[at]!;
        }
        y[h * dv + j] = sum * normalizer;
      }
    }
    return y;
  }

  /** Turns each pair of neighbours of each head by θ · position; sine and cosine in f64. */
  rotate(x: Vector, position: number): Vector {
    const angles = rotationAngles(this.#config);
    const rotated = new Float32Array(x.length);
    for (let i = 0; i < x.length; i += 2) {
      const phase = angles[(i / 2) % angles.length]! * position;
      rotated[i] = x[i]! * Math.cos(phase) - x[i + 1]! * Math.sin(phase);
      rotated[i + 1] = x[i + 1]! * Math.cos(phase) + x[i]! * Math.sin(phase);
    }
    return rotated;
  }

  #linear(x: Vector, name: string): Vector {
    return matVec(this.#weight(`${name}.weight`), x);
  }
}

/** The position of this step; advances the state to the next. */
function takePosition(state: ReferenceState): number {
  const digits = state.get("position")!;
  const position = digits[0]! + POSITION_BASE * digits[1]!;
  digits[0] = (position + 1) % POSITION_BASE;
  digits[1] = Math.floor((position + 1) / POSITION_BASE);
  return position;
}
