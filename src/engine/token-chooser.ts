/**
 * Which tokens follow in one sequence: those that its grammar leaves no choice about, or else the
 * sampler's choice among those that it allows. Knows logits and the grammar, but neither slots nor
 * events.
 */
import type { LogitRows } from "../model/logits.ts";
import { Sampler, type SamplingScratch } from "../sampling/sampler.ts";
import type { NextTokens } from "../sampling/token-matcher.ts";
import { idsIn } from "../sessions/stores/snapshot.ts";
import type { ResumePoint, SequenceRequest } from "./sequence.ts";

export type Chosen =
  /** Of several, those after the first are forced. */
  | { readonly type: "tokens"; readonly tokenIds: readonly number[] }
  /** The grammar has not told yet. */
  | { readonly type: "unknown" }
  | Extract<NextTokens, { type: "end" | "failed" }>;

export interface TokenChooserOptions {
  /** For a request that brings none. */
  readonly seed: number;
  readonly scratch: SamplingScratch;
}

export class TokenChooser {
  readonly #request: SequenceRequest;
  readonly #sampler: Sampler;
  /** Come next for certain, but each waits for the logits that score it. */
  #waiting: number[] = [];

  constructor(request: SequenceRequest, { seed, scratch }: TokenChooserOptions) {
    const { resume, sampling, promptIds, vocabSize } = request;
    this.#request = request;
    this.#sampler = new Sampler({
      params: sampling,
      context: [pastIds(resume), resume?.tokenIds ?? [], promptIds],
      minTokens: request.minTokens,
      stopTokenIds: request.stopTokenIds,
      seed: resume?.sampler?.seed ?? sampling.seed ?? seed,
      numDraws: resume?.sampler?.numDraws ?? 0,
      sampledBefore: sampledBefore(resume),
      scratch,
      ...(vocabSize !== undefined && { vocabSize }),
    });
  }

  /** Another request continues the random numbers from here. */
  get samplerState(): Sampler["state"] {
    return this.#sampler.state;
  }

  /** Whether all logits of the next row will be read for certain. */
  get readsWholeRow(): boolean {
    return this.#sampler.readsWholeRow || this.#request.matcher !== undefined;
  }

  /** Whether each forced token needs the logits before it. */
  get scoresForced(): boolean {
    return this.#request.numLogprobs !== undefined;
  }

  /** Forced tokens that have not been chosen yet. */
  get waiting(): readonly number[] {
    return this.#waiting;
  }

  /** Takes the first of the waiting tokens without choosing them. */
  takeWaiting(numTokens: number): readonly number[] {
    return this.#waiting.splice(0, numTokens);
  }

  /**
   * @param numLeft how many tokens the sequence may still have, at least one
   * @throws as the sampler does
   */
  choose(rows: LogitRows, row: number, numLeft: number): Chosen {
    if (this.#waiting.length > 0) return this.#chooseForced();
    const { matcher, stopTokenIds } = this.#request;
    if (matcher === undefined) return { type: "tokens", tokenIds: [this.#sampler.sample(rows, row)] };
    if (matcher.next === undefined) matcher.waitBriefly();
    const { next } = matcher;
    switch (next?.type) {
      case undefined:
        return { type: "unknown" };
      case "end":
      case "failed":
        return next;
      case "forced":
        this.#expect(next.tokenIds, numLeft);
        return this.#chooseForced();
      case "allowed": {
        const tokenId = this.#sampler.sample(rows, row, next.mask);
        const tokenIds = [tokenId];
        if (stopTokenIds.has(tokenId) || numLeft === 1) return { type: "tokens", tokenIds };
        matcher.accept(tokenId);
        // What follows for certain is read together with it.
        if (matcher.next?.type === "forced") {
          this.#expect(matcher.next.tokenIds, numLeft - 1);
          if (!this.scoresForced) tokenIds.push(...this.#chooseForced().tokenIds);
        }
        return { type: "tokens", tokenIds };
      }
    }
  }

  /** Calls back once `choose` need not wait for the grammar. */
  onceKnown(callback: () => void): void {
    this.#request.matcher!.onceKnown(callback);
  }

  close(): void {
    this.#request.matcher?.close();
  }

  #expect(tokenIds: readonly number[], numLeft: number): void {
    const { stopTokenIds, matcher } = this.#request;
    const stop = tokenIds.findIndex((tokenId) => stopTokenIds.has(tokenId)) + 1;
    this.#waiting = tokenIds.slice(0, Math.min(stop || numLeft, numLeft));
    matcher!.acceptForced();
  }

  /** All that wait; where they are scored, the first. */
  #chooseForced(): Extract<Chosen, { type: "tokens" }> {
    const tokenIds = this.#waiting.splice(0, this.scoresForced ? 1 : this.#waiting.length);
    for (const tokenId of tokenIds) this.#sampler.force(tokenId);
    return { type: "tokens", tokenIds };
  }
}

/** Computed only if needed. */
function pastIds(resume: ResumePoint | undefined): Iterable<number> {
  const { seenIds } = resume?.history ?? {};
  return seenIds === undefined ? [] : { [Symbol.iterator]: () => idsIn(seenIds)[Symbol.iterator]() };
}

function sampledBefore(resume: ResumePoint | undefined): readonly number[] {
  if (resume?.sampler === undefined) return [];
  const { tokenIds, sampler } = resume;
  const last = tokenIds.slice(Math.max(0, tokenIds.length - sampler.numSampled));
  return sampler.sampledInPast === undefined ? last : sampler.sampledInPast.concat(last);
}
