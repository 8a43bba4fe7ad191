/**
 * What the soak test's clients know for certain: the acknowledged tokens of every session, what may
 * have come after them when a request was cut off, and every violation. Knows no network.
 */

/** Tokens of a session that the model chose: from `start` up to `end`. */
export interface Answer {
  readonly start: number;
  readonly end: number;
}

/** A session as its client knows it. */
export interface KnownSession {
  readonly id: string;
  readonly tokenIds: readonly number[];
  readonly answers: readonly Answer[];
}

/** A turn that was requested and whose end did not arrive. */
export interface OpenTurn {
  readonly promptIds: readonly number[];
  /** The part of the answer that arrived. */
  readonly seenIds: readonly number[];
  readonly maxTokens: number;
}

export const VIOLATIONS = [
  "wrong end",
  "lost state",
  "wrong continuation",
  "unexpected refusal",
  "slots not released",
] as const;
export type Violation = (typeof VIOLATIONS)[number];

/** After a turn whose end arrived. */
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
 * A session after its last turn was cut off: all that was acknowledged, and then nothing, or the
 * turn's prompt and some of its answer.
 * @param storedIds what the server has of it now
 * @returns what is wrong with it, as text, if it is anything else
 */
export function reconcile(known: KnownSession, storedIds: readonly number[], turn?: OpenTurn): KnownSession | string {
  const numKnown = known.tokenIds.length;
  if (!startsWith(storedIds, known.tokenIds)) {
    return `${known.id} lost acknowledged tokens: ${numKnown} were acknowledged, ${storedIds.length} are stored`;
  }
  const more = storedIds.slice(numKnown);
  if (more.length === 0) return known;
  if (turn === undefined || !startsWith(more, turn.promptIds)) return `${known.id} has tokens that nobody sent`;
  const answerIds = more.slice(turn.promptIds.length);
  if (answerIds.length > turn.maxTokens) return `${known.id} has a longer answer than requested`;
  const numBoth = Math.min(answerIds.length, turn.seenIds.length);
  if (!startsWith(answerIds, turn.seenIds.slice(0, numBoth))) return `${known.id} has another answer than it streamed`;
  return afterTurn(known, turn.promptIds, answerIds);
}

export function startsWith(ids: readonly number[], beginning: readonly number[]): boolean {
  return beginning.length <= ids.length && beginning.every((id, i) => ids[i] === id);
}

export class Ledger {
  readonly #counts = new Map<string, number>();
  readonly #violations = new Map<Violation, string[]>();
  readonly #onViolation: (text: string) => void;

  /** @param onViolation is called with each as it happens */
  constructor(onViolation: (text: string) => void) {
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
