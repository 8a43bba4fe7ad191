/**
 * Compiles constraints for one vocabulary, and remembers some: the same schema comes with many
 * requests. Compiling is bounded by the size that a grammar may have.
 */
import { setImmediate } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import { Automaton, type State } from "./automaton.ts";
import type { Constraint } from "./constraint.ts";
import { constraintGrammar, type ReasoningPrefix, tagTexts } from "./constraint-grammar.ts";
import { type CompiledGrammar, GrammarMatcher, stepAll } from "./grammar-matcher.ts";
import { compileProgram } from "./program.ts";
import { SlicedWork } from "./sliced-work.ts";
import { TokenTrie, type Vocabulary } from "./token-trie.ts";

export interface GrammarObserver {
  /** A constraint has been compiled, and was not in the cache. */
  onGrammar(event: { readonly durationMs: number }): void;
}

export interface GrammarsOptions {
  /** Monotonic, in milliseconds. */
  readonly now: () => number;
  readonly observer?: GrammarObserver | undefined;
}

const MAX_CACHED = 32;
/** A constraint as JSON. */
const MAX_LENGTH = 2 ** 20;
/** Bytes of a text that an answer continues, between two turns of the event loop. */
const BYTES_PER_TURN = 256;

export class Grammars {
  readonly #trie: TokenTrie;
  readonly #now: () => number;
  readonly #observer: GrammarObserver | undefined;
  readonly #work: SlicedWork;
  /** By the constraint as JSON; the last used ones last. */
  readonly #cache = new Map<string, CompiledGrammar>();

  constructor(vocabulary: Vocabulary, { now, observer }: GrammarsOptions) {
    this.#trie = new TokenTrie(vocabulary);
    this.#now = now;
    this.#observer = observer;
    this.#work = new SlicedWork({ now });
  }

  /**
   * @throws `invalid_value`, `unsupported_value`: the message goes on after the name of what is at
   * fault, `param` is its path within the constraint
   */
  compile(constraint: Constraint, reasoning?: ReasoningPrefix): CompiledGrammar {
    const key = keyOf(constraint, reasoning);
    const grammar = this.#cache.get(key) ?? this.#compile(constraint, reasoning);
    this.#cache.delete(key);
    this.#cache.set(key, grammar);
    if (this.#cache.size > MAX_CACHED) this.#cache.delete(this.#cache.keys().next().value!);
    return grammar;
  }

  /**
   * @param continued the text that the answer continues
   * @returns makes a matcher for each answer
   * @throws `invalid_value` if that text is not the beginning of one that matches
   */
  async open(grammar: CompiledGrammar, continued: string, endIds: readonly number[]): Promise<() => GrammarMatcher> {
    let state: State | undefined = grammar.start;
    const bytes = Buffer.from(continued, "utf8");
    for (let start = 0; start < bytes.length && state !== undefined; start += BYTES_PER_TURN) {
      state = stepAll(grammar.automaton, state, bytes.subarray(start, start + BYTES_PER_TURN));
      if (bytes.length > BYTES_PER_TURN) await setImmediate();
    }
    if (state === undefined)
      throw new DenseMambaError("invalid_value", "does not allow the text that the answer continues");
    const from = state;
    return () => new GrammarMatcher({ grammar, state: from, endIds, work: this.#work });
  }

  #compile(constraint: Constraint, reasoning: ReasoningPrefix | undefined): CompiledGrammar {
    const startMs = this.#now();
    const automaton = new Automaton(compileProgram(constraintGrammar(constraint, reasoning)));
    const texts = tagTexts(constraint, reasoning).map((text) => Buffer.from(text, "utf8"));
    const isNamed = (id: number) => {
      const bytes = this.#trie.tokenBytes(id);
      return bytes.length > 0 && texts.some((text) => text.includes(Buffer.from(bytes)));
    };
    const specialIds = texts.length === 0 ? [] : [...this.#trie.specialIds].filter(isNamed);
    const grammar = { automaton, start: automaton.start(), trie: this.#trie, specialIds };
    this.#observer?.onGrammar({ durationMs: this.#now() - startMs });
    return grammar;
  }
}

function keyOf(constraint: Constraint, reasoning: ReasoningPrefix | undefined): string {
  let key: string;
  try {
    key = JSON.stringify({ constraint, reasoning });
  } catch (cause) {
    throw new DenseMambaError("unsupported_value", "is nested too deeply", { cause });
  }
  if (key.length <= MAX_LENGTH) return key;
  throw new DenseMambaError(
    "unsupported_value",
    `must have at most ${MAX_LENGTH} characters as JSON; got ${key.length}`,
  );
}
