/**
 * What the soak's users know for sure: the tokens of every session that were acknowledged, what may have happened beyond
 * them when a request was cut off, and everything that ought not to have happened. Knows no network.
 */

/** Tokens that the model chose, among those of a session: from `start` up to `end`. */
export interface Answer {
  readonly start: number;
  readonly end: number;
}

/** A session as its user has it. */
export interface KnownSession {
  readonly id: string;
  readonly tokenIds: readonly number[];
  readonly answers: readonly Answer[];
}

/** A turn that was asked for and whose end was not told. */
export interface OpenTurn {
  readonly promptIds: readonly number[];
  /** What came of the answer. */
  readonly seenIds: readonly number[];
  readonly maxTokens: number;
}

export type Violation =
  | "lost state"
  | "wrong continuation"
  | "wrong end"
  | "unexpected refusal"
  | "slots not given back";

/** A turn whose end was told. */
export function afterTurn(
  known: KnownSession,
  promptIds: readonly number[],
  answerIds: readonly number[],
): KnownSession {
  const start = known.tokenIds.length + promptIds.length;
  return {
    id: known.id,
    tokenIds: [...known.tokenIds, ...promptIds, ...answerIds],
    answers: [...known.answers, { start, end: start + answerIds.length }],
  };
}

/**
 * What a session has become whose last turn was cut off: all of what was acknowledged, and then nothing, or the turn's
 * prompt and some of its answer.
 * @param keptIds what the server has of it now
 * @returns what is wrong with it, as text, if it is anything else
 */
export function reconcile(known: KnownSession, keptIds: readonly number[], turn?: OpenTurn): KnownSession | string {
  const numKnown = known.tokenIds.length;
  if (!startsWith(keptIds, known.tokenIds)) {
    return `${known.id} has lost what was acknowledged: ${numKnown} tokens were, ${keptIds.length} are kept`;
  }
  const more = keptIds.slice(numKnown);
  if (more.length === 0) return known;
  if (turn === undefined || !startsWith(more, turn.promptIds)) return `${known.id} holds what nobody asked for`;
  const answerIds = more.slice(turn.promptIds.length);
  if (answerIds.length > turn.maxTokens) return `${known.id} goes on for longer than it was asked to`;
  const numBoth = Math.min(answerIds.length, turn.seenIds.length);
  if (!startsWith(answerIds, turn.seenIds.slice(0, numBoth)))
    return `${known.id} keeps another answer than it streamed`;
  return afterTurn(known, turn.promptIds, answerIds);
}

export function startsWith(ids: readonly number[], beginning: readonly number[]): boolean {
  return beginning.length <= ids.length && beginning.every((id, i) => ids[i] === id);
}

export class Book {
  readonly #counts = new Map<string, number>();
  readonly #violations = new Map<Violation, string[]>();
  readonly #onViolation: (text: string) => void;

  /** @param onViolation is told each as it comes */
  constructor(onViolation: (text: string) => void = () => {}) {
    this.#onViolation = onViolation;
  }

  count(what: string, by = 1): void {
    this.#counts.set(what, this.counted(what) + by);
  }

  counted(what: string): number {
    return this.#counts.get(what) ?? 0;
  }

  report(violation: Violation, what: string): void {
    this.#violations.set(violation, [...this.reported(violation), what]);
    this.#onViolation(`${violation}: ${what}`);
  }

  reported(violation: Violation): readonly string[] {
    return this.#violations.get(violation) ?? [];
  }

  get counts(): ReadonlyMap<string, number> {
    return this.#counts;
  }
}
