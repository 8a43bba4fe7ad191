/**
 * Changes a sequence's logits before a draw, in vLLM's order: masks tokens that are not allowed,
 * those that would end a banned sequence, and stop tokens until enough tokens are sampled; then
 * logit bias, repetition penalty, frequency and presence penalties. Remembers
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
  /** The last output tokens, as many as the longest banned sequence has before its end. */
  #recent: readonly number[];
  readonly #numRecent: number;
  /** The ends of banned sequences whose other tokens have just been sampled. */
  #bannedNow: readonly number[] = [];

  constructor({ params, context, sampledBefore = [], minTokens, stopTokenIds }: ProcessorOptions) {
    this.#params = params;
    this.#minTokens = minTokens;
    this.#stopTokenIds = stopTokenIds;
    this.#hasPenalties =
      params.repetitionPenalty !== 1 || params.presencePenalty !== 0 || params.frequencyPenalty !== 0;
    if (params.repetitionPenalty !== 1) for (const ids of context) for (const id of ids) this.#seen.add(id);
    if (this.#hasPenalties) for (const id of sampledBefore) this.#count(id);
    this.#numRecent = Math.max(0, ...(params.bannedSequences ?? []).map(({ length }) => length - 1));
    this.#recent = lastOf(sampledBefore, this.#numRecent);
    this.#findBanned();
  }

  /** Whether the next row must be changed at all. */
  get isActive(): boolean {
    const isMasking = this.#numSampled < this.#minTokens && this.#stopTokenIds.size > 0;
    const { logitBias, allowedTokenIds } = this.#params;
    const isLimited = allowedTokenIds !== undefined || this.#bannedNow.length > 0;
    return this.#hasPenalties || isMasking || isLimited || logitBias.size > 0;
  }

  /** Changes `logits` [V] in place. Ids outside the vocabulary have no effect. */
  process(logits: Float32Array): void {
    const { logitBias, allowedTokenIds, repetitionPenalty, presencePenalty, frequencyPenalty } = this.#params;
    if (allowedTokenIds !== undefined) keepOnly(logits, allowedTokenIds);
    for (const id of this.#bannedNow) logits[id] = Number.NEGATIVE_INFINITY;
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
    if (this.#numRecent > 0) {
      this.#recent = lastOf([...this.#recent, tokenId], this.#numRecent);
      this.#findBanned();
    }
    if (!this.#hasPenalties) return;
    this.#count(tokenId);
    if (this.#params.repetitionPenalty !== 1) this.#seen.add(tokenId);
  }

  #count(tokenId: number): void {
    this.#counts.set(tokenId, (this.#counts.get(tokenId) ?? 0) + 1);
  }

  #findBanned(): void {
    const { bannedSequences = [] } = this.#params;
    this.#bannedNow = bannedSequences.filter((ids) => this.#isNext(ids)).map((ids) => ids.at(-1)!);
  }

  /** Whether only the last token of the sequence is missing. */
  #isNext(ids: readonly number[]): boolean {
    const recent = this.#recent;
    const start = recent.length - (ids.length - 1);
    if (start < 0) return false;
    for (let i = ids.length - 2; i >= 0; i--) if (ids[i] !== recent[start + i]) return false;
    return true;
  }
}

function keepOnly(logits: Float32Array, ids: readonly number[]): void {
  const kept = ids.map((id) => logits[id]!);
  logits.fill(Number.NEGATIVE_INFINITY);
  for (const [i, id] of ids.entries()) logits[id] = kept[i]!;
}

function lastOf(ids: readonly number[], count: number): readonly number[] {
  return count === 0 ? [] : ids.slice(-count);
}
