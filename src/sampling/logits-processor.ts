/**
 * Changes a sequence's logits before a draw, in vLLM's order: masks stop tokens until enough tokens
 * are sampled, then logit bias, repetition penalty, frequency and presence penalties. Remembers
 * which tokens the sequence has seen.
 */
import type { SamplingParams } from "./params.ts";

const MAX_F32 = 2 ** 128 - 2 ** 104;

export interface ProcessorOptions {
  readonly params: SamplingParams;
  /**
   * All tokens before the first sampled one, in parts. Read once, and only for a repetition
   * penalty.
   */
  readonly context: readonly Iterable<number>[];
  /** The part of the context that counts as output: an answer that is continued. Default: none. */
  readonly sampledBefore?: readonly number[];
  readonly minTokens: number;
  readonly stopTokenIds: ReadonlySet<number>;
}

export class LogitsProcessor {
  readonly #params: SamplingParams;
  readonly #minTokens: number;
  readonly #stopTokenIds: ReadonlySet<number>;
  readonly #hasPenalties: boolean;
  /** Distinct tokens of prompt and output; filled only under a repetition penalty. */
  readonly #seen = new Set<number>();
  /** Output tokens → how often; filled only under a penalty. */
  readonly #counts = new Map<number, number>();
  #numSampled = 0;

  constructor({ params, context, sampledBefore = [], minTokens, stopTokenIds }: ProcessorOptions) {
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
  process(logits: Float32Array): void {
    const { logitBias, repetitionPenalty, presencePenalty, frequencyPenalty } = this.#params;
    if (this.#numSampled < this.#minTokens) for (const id of this.#stopTokenIds) logits[id] = Number.NEGATIVE_INFINITY;
    for (const [id, bias] of logitBias) logits[id] = logits[id]! + bias;
    if (repetitionPenalty !== 1) {
      for (const id of this.#seen) {
        const logit = logits[id]!;
        // A penalty near 0 may overflow f32. Masked tokens stay masked.
        logits[id] = logit > 0 ? Math.min(logit / repetitionPenalty, MAX_F32) : logit * repetitionPenalty;
      }
    }
    if (presencePenalty !== 0 || frequencyPenalty !== 0) {
      for (const [id, count] of this.#counts) {
        logits[id] = logits[id]! - count * frequencyPenalty - presencePenalty;
      }
    }
  }

  /** Call once for each sampled token. */
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
