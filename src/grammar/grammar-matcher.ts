/**
 * Follows one sequence through a grammar: which tokens may come next, and which come for certain.
 *
 * Where a grammar leaves only one text, its tokens are the longest ones, from its beginning, up to
 * the first that might be longer for what may follow: so they are the same whether they are read at
 * once or one by one, and mostly the tokenizer's own.
 *
 * Masks are found on the main thread, a little at a time, and remembered: most are there already.
 */
import { DenseMambaError } from "../errors.ts";
import type { NextTokens, TokenMask, TokenMatcher } from "../sampling/token-matcher.ts";
import type { Automaton, State } from "./automaton.ts";
import type { MaskJob, SlicedWork } from "./sliced-work.ts";
import { type TokenTrie, USUAL_LENGTH } from "./token-trie.ts";

export interface CompiledGrammar {
  readonly automaton: Automaton;
  readonly start: State;
  readonly trie: TokenTrie;
  /** Special tokens that the grammar names, in tags. */
  readonly specialIds: readonly number[];
}

export interface MatcherOptions {
  readonly grammar: CompiledGrammar;
  /** After the text that the answer continues. */
  readonly state: State;
  /** Allowed where the text may end. */
  readonly endIds: readonly number[];
  readonly work: SlicedWork;
}

/** Bytes that are looked ahead for forced tokens. */
const MAX_FORCED_BYTES = 512;
/** The longest that a step waits for a mask: it costs the other sequences little. */
const MAX_WAIT_MS = 4;

export class GrammarMatcher implements TokenMatcher {
  readonly #grammar: CompiledGrammar;
  readonly #endIds: readonly number[];
  readonly #work: SlicedWork;
  #state: State;
  #next: NextTokens | undefined;
  /** The state after forced tokens. */
  #afterForced: State | undefined;
  #job: MaskJob | undefined;
  #onKnown: (() => void) | undefined;

  constructor({ grammar, state, endIds, work }: MatcherOptions) {
    this.#grammar = grammar;
    this.#endIds = endIds;
    this.#work = work;
    this.#state = state;
    this.#findNext();
  }

  get next(): NextTokens | undefined {
    return this.#next;
  }

  waitBriefly(): void {
    if (this.#job !== undefined) this.#work.runNow(this.#job, MAX_WAIT_MS);
  }

  onceKnown(callback: () => void): void {
    this.#onKnown = callback;
  }

  accept(tokenId: number): void {
    this.#state = stepAll(this.#grammar.automaton, this.#state, this.#grammar.trie.tokenBytes(tokenId))!;
    this.#findNext();
  }

  acceptForced(): void {
    this.#state = this.#afterForced!;
    this.#findNext();
  }

  close(): void {
    this.#dropJob();
    this.#onKnown = undefined;
  }

  #dropJob(): void {
    if (this.#job !== undefined) this.#work.drop(this.#job);
    this.#job = undefined;
  }

  #findNext(): void {
    this.#next = undefined;
    this.#dropJob();
    try {
      const forced = this.#forcedTokens();
      if (forced.length > 0) this.#next = { type: "forced", tokenIds: forced };
      else this.#findMask();
    } catch (error) {
      this.#next = { type: "failed", error: toError(error) };
    }
  }

  #forcedTokens(): number[] {
    const { automaton, trie, specialIds } = this.#grammar;
    const text: number[] = [];
    let end = this.#state;
    for (let byte = automaton.onlyByte(end); byte !== undefined; byte = automaton.onlyByte(end)) {
      text.push(byte);
      end = automaton.step(end, byte)!;
      if (text.length === MAX_FORCED_BYTES) break;
    }
    const forced: number[] = [];
    const bytes = Uint8Array.from(text);
    let state = this.#state;
    for (let start = 0; start < bytes.length; ) {
      const rest = bytes.subarray(start);
      const special = specialIds.find((id) => startsWith(rest, trie.tokenBytes(id)));
      const isOpen = special === undefined && rest.length < trie.maxLength && trie.someExtends(rest, automaton, end);
      const tokenId = isOpen ? undefined : (special ?? trie.longestIn(rest));
      if (tokenId === undefined) break;
      const token = trie.tokenBytes(tokenId);
      forced.push(tokenId);
      state = stepAll(automaton, state, token)!;
      start += token.length;
    }
    this.#afterForced = state;
    return forced;
  }

  #findMask(): void {
    const { automaton, trie, specialIds } = this.#grammar;
    const state = automaton.nearby(this.#state, USUAL_LENGTH);
    const known = state.memo as TokenMask | undefined;
    if (known !== undefined) {
      this.#know(known);
      return;
    }
    const walk = trie.walk(automaton, state);
    this.#job = {
      walk,
      done: () => {
        this.#job = undefined;
        for (const id of specialIds) {
          if (stepAll(automaton, state, trie.tokenBytes(id)) !== undefined) setAllowed(walk.mask, id, true);
        }
        state.memo = walk.mask;
        this.#know(walk.mask);
        this.#tell();
      },
      failed: (error) => {
        this.#job = undefined;
        this.#next = { type: "failed", error: toError(error) };
        this.#tell();
      },
    };
    this.#work.add(this.#job);
  }

  /** @param usual right for all tokens but the long ones */
  #know(usual: TokenMask): void {
    const { mayEnd } = this.#state;
    const allowed = this.#withLongTokens(usual);
    if (allowed.every((bits) => bits === 0)) {
      const message = "the constraint on the answer cannot be met: no token of the vocabulary goes on as it demands";
      this.#next = mayEnd ? { type: "end" } : { type: "failed", error: new DenseMambaError("invalid_value", message) };
      return;
    }
    // An end token may also be text: it ends the answer all the same.
    const isWrong = this.#endIds.some((id) => isAllowed(allowed, id) !== mayEnd);
    const mask = isWrong ? allowed.slice() : allowed;
    if (isWrong) for (const id of this.#endIds) setAllowed(mask, id, mayEnd);
    this.#next = { type: "allowed", mask };
  }

  /** A count that is near for a long token only makes a difference to that one. */
  #withLongTokens(usual: TokenMask): TokenMask {
    const { automaton, trie } = this.#grammar;
    const state = this.#state;
    if (automaton.nearby(state, USUAL_LENGTH) === state) return usual;
    const mask = usual.slice();
    for (const id of trie.longIds) setAllowed(mask, id, stepAll(automaton, state, trie.tokenBytes(id)) !== undefined);
    return mask;
  }

  #tell(): void {
    const callback = this.#onKnown;
    this.#onKnown = undefined;
    callback?.();
  }
}

/** Undefined: the bytes may not come. */
export function stepAll(automaton: Automaton, from: State, bytes: Uint8Array): State | undefined {
  let state: State | undefined = from;
  for (let index = 0; index < bytes.length && state !== undefined; index++)
    state = automaton.step(state, bytes[index]!);
  return state;
}

function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return prefix.length > 0 && prefix.length <= bytes.length && prefix.every((byte, index) => byte === bytes[index]);
}

function isAllowed(mask: TokenMask, id: number): boolean {
  return ((mask[id >> 5]! >>> (id & 31)) & 1) === 1;
}

function setAllowed(mask: TokenMask, id: number, isAllowed: boolean): void {
  const bit = 1 << (id & 31);
  mask[id >> 5] = isAllowed ? mask[id >> 5]! | bit : mask[id >> 5]! & ~bit;
}

function toError(error: unknown): Error {
  if (!(error instanceof DenseMambaError)) return error instanceof Error ? error : new Error(String(error));
  return new DenseMambaError(error.code, `the constraint on the answer ${error.message}`, { cause: error });
}
