/**
 * What a sampler and an engine need of a grammar: which tokens may come next. The grammar itself
 * runs elsewhere and may take its time.
 */

/** Bit `id % 32` of word `id / 32`: whether the token may come. Ids beyond it may not. */
export type TokenMask = Int32Array;

export type NextTokens =
  /** These come next, one after another, before there is anything to choose. */
  | { readonly type: "forced"; readonly tokenIds: readonly number[] }
  | { readonly type: "allowed"; readonly mask: TokenMask }
  /** The text is complete, and nothing can follow it. */
  | { readonly type: "end" }
  | { readonly type: "failed"; readonly error: Error };

/** Follows one sequence. */
export interface TokenMatcher {
  /** Undefined while it is being computed. */
  readonly next: NextTokens | undefined;
  /** Waits for it, without the event loop, as long as that costs other sequences little. */
  waitBriefly(): void;
  /** Called once, when it is known. */
  onceKnown(callback: () => void): void;
  /** The token that was chosen from `next`. All forced tokens count as accepted at once. */
  accept(tokenId: number): void;
  acceptForced(): void;
  /** Frees what it holds. Idempotent. */
  close(): void;
}

/** Rules out, in place, what the mask does not allow. */
export function applyMask(logits: Float32Array, mask: TokenMask): void {
  const numWords = Math.min(mask.length, Math.ceil(logits.length / 32));
  for (let word = 0; word < numWords; word++) {
    const bits = mask[word]!;
    if (bits === -1) continue;
    const first = word * 32;
    if (bits === 0) logits.fill(Number.NEGATIVE_INFINITY, first, first + 32);
    else
      for (let bit = 0; bit < 32; bit++) if (((bits >>> bit) & 1) === 0) logits[first + bit] = Number.NEGATIVE_INFINITY;
  }
  logits.fill(Number.NEGATIVE_INFINITY, numWords * 32);
}
