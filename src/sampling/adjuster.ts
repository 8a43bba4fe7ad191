/**
 * What changes a sequence's logits before a draw, in vLLM's order: stop tokens masked until enough tokens are sampled,
 * logit bias, repetition penalty, frequency and presence penalties. Remembers which tokens the sequence has seen.
 */
import type { SamplingParams } from "./params.ts";

const MAX_F32 = 2 ** 128 - 2 ** 104;

export interface AdjusterOptions {
  readonly params: SamplingParams;
  /** Everything before the first sampled token, in parts; read once, and only if a penalty needs it. */
  readonly context: readonly Iterable<number>[];
  /** Of the context, what counts as output for the penalties: an answer that is continued. Default: nothing. */
  readonly sampledBefore?: readonly number[];
  readonly minTokens: number;
  readonly stopTokenIds: ReadonlySet<number>;
}

export class LogitAdjuster {
  readonly #params: SamplingParams;
  readonly #minTokens: number;
  readonly #stopTokenIds: ReadonlySet<number>;
  readonly #hasPenalties: boolean;
  /** Distinct tokens of prompt and output; filled only under a repetition penalty. */
  readonly #seen = new Set<number>();
  /** Output tokens → how often; filled only under a penalty. */
  readonly #counts = new Map<number, number>();
  #numSampled = 0;

  constructor({ params, context, sampledBefore = [], minTokens, stopTokenIds }: AdjusterOptions) {
    this.#params = params;
    this.#minTokens = minTokens;
    this.#stopTokenIds = stopTokenIds;
    this.#hasPenalties =
      params.repetitionPenalty !== 1 || params.presencePenalty !== 0 || params.frequencyPenalty !== 0;
    if (params.repetitionPenalty !== 1) for (const ids of context) for (const id of ids) this.#seen.add(id);
    if (this.#hasPenalties) for (const id of sampledBefore) this.#count(id);
  }

  /** Whether the next row must be changed at all. */
  get isActive(): boolean {
    const isMasking = this.#numSampled < this.#minTokens && this.#stopTokenIds.size > 0;
    return this.#hasPenalties || isMasking || this.#params.logitBias.size > 0;
  }

  /** Changes `logits` [V] in place. Ids outside the vocabulary have no effect. */
  adjust(logits: Float32Array): void {
    const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty } = this.#params;
    if (this.#numSampled < this.#minTokens) for (const id of this.#stopTokenIds) logits[id] = Number.NEGATIVE_INFINITY;
    for (const [id, bias] of logitBias) logits[id] = logits[id]! + bias;
    if (repetitionPenalty !== 1) {
      for (const id of this.#seen) {
        const logit = logits[id]!;
        // A penalty near 0 divides beyond what f32 holds; what is masked stays so.
        logits[id] = logit > 0 ? Math.min(logit / repetitionPenalty, MAX_F32) : logit * repetitionPenalty;
      }
    }
    if (presencePenalty !== 0 || frequencyPenalty !== 0) {
      for (const [id, count] of this.#counts) {
        logits[id] = logits[id]! - count * frequencyPenalty - presencePenalty;
      }
    }
  }

  /** Call once for every sampled token. */
  record(tokenId: number): void {
    this.#numSampled++;
    if (!this.#hasPenalties) return;
    this.#count(tokenId);
    if (this.#params.repetitionPenalty !== 1) this.#seen.add(tokenId);
  }

  #count(tokenId: number): void {
    this.#counts.set(tokenId, (this.#counts.get(tokenId) ?? 0) + 1);
  }
}
