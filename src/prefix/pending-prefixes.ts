/**
 * Where prompts that are being read now will leave states. A prompt that begins like one of them waits for its state rather
 * than read the same tokens beside it: of a burst on one system prompt the first reads it for all. Knows neither engine nor
 * cache: whoever reads says when a state is kept, or will not be.
 */

/** What begins alike in this many tokens is looked at one after the other. */
const ALIKE_TOKENS = 16;

/** A state that is to come. */
interface Coming {
  /** Of the reader; one waits for those of smaller tickets only, so that no two wait for each other. */
  readonly ticket: number;
  readonly tokenIds: readonly number[];
  /** Tokens that the state will have read. */
  readonly length: number;
  /** Resolves with whether it is kept. */
  readonly settled: Promise<boolean>;
  readonly settle: (isKept: boolean) => void;
}

/** Prompts of one beginning. */
interface Group {
  readonly coming: Set<Coming>;
  /** Ends when the last one that came has looked around. */
  turn: Promise<unknown>;
  numUsers: number;
}

export class PromptsInFlight {
  readonly #groups = new Map<string, Group>();
  #numReaders = 0;

  /** For one request. Must be ended, or others may wait for its states for ever. */
  reader(): PromptReader {
    return new PromptReader(this.#groups, this.#numReaders++);
  }

  /** Beginnings that somebody reads or waits for. */
  get size(): number {
    return this.#groups.size;
  }
}

export class PromptReader {
  readonly #groups: Map<string, Group>;
  readonly #ticket: number;
  readonly #ends: (() => void)[] = [];

  constructor(groups: Map<string, Group>, ticket: number) {
    this.#groups = groups;
    this.#ticket = ticket;
  }

  /**
   * Waits while an earlier request reads what this prompt begins with; then `plan` says where this one will leave states.
   * @param plan never runs for two prompts of one beginning at once
   * @returns what `plan` gave, and what to call when the state at a length is kept or cannot be
   */
  async enter<T extends { readonly lengths: readonly number[] }>(
    scope: string,
    tokenIds: readonly number[],
    signal: AbortSignal,
    plan: () => Promise<T>,
  ): Promise<{ readonly planned: T; readonly settle: (length: number, isKept: boolean) => void }> {
    const key = `${scope}:${tokenIds.slice(0, ALIKE_TOKENS).join()}`;
    const group = this.#groups.get(key) ?? { coming: new Set(), turn: Promise.resolve(), numUsers: 0 };
    this.#groups.set(key, group);
    group.numUsers++;
    const own: Coming[] = [];
    const settle = (coming: Coming, isKept: boolean) => {
      group.coming.delete(coming);
      coming.settle(isKept);
    };
    this.#ends.push(() => {
      for (const coming of own) settle(coming, false);
      if (--group.numUsers === 0) this.#groups.delete(key);
    });
    const look = async () => {
      const awaited = signal.aborted ? undefined : this.#longest(group, tokenIds);
      if (awaited !== undefined) return awaited;
      const planned = await plan();
      for (const length of planned.lengths) own.push(comingAt(this.#ticket, tokenIds, length));
      for (const coming of own) group.coming.add(coming);
      return planned;
    };
    for (;;) {
      const looked = inTurn(group, look);
      const found = await looked;
      if (!("settled" in found)) {
        const settleAt = (length: number, isKept: boolean) => {
          for (const coming of own) if (coming.length === length) settle(coming, isKept);
        };
        return { planned: found, settle: settleAt };
      }
      await unlessAborted(found.settled, signal);
    }
  }

  /** What is not kept by now will not be. Idempotent. */
  end(): void {
    for (const end of this.#ends.splice(0)) end();
  }

  /** The longest state that an earlier request is about to leave, of what this prompt begins with. */
  #longest({ coming }: Group, tokenIds: readonly number[]): Coming | undefined {
    let longest: Coming | undefined;
    for (const candidate of coming) {
      const isEarlier = candidate.ticket < this.#ticket;
      if (!isEarlier || candidate.length >= tokenIds.length || candidate.length <= (longest?.length ?? 0)) continue;
      if (beginsAlike(candidate, tokenIds)) longest = candidate;
    }
    return longest;
  }
}

function comingAt(ticket: number, tokenIds: readonly number[], length: number): Coming {
  let settle: Coming["settle"] = () => {};
  const settled = new Promise<boolean>((resolve) => {
    settle = resolve;
  });
  return { ticket, tokenIds, length, settled, settle };
}

function beginsAlike({ tokenIds, length }: Coming, others: readonly number[]): boolean {
  // From the end: what differs at all differs there, more often than not.
  for (let i = length - 1; i >= 0; i--) if (tokenIds[i] !== others[i]) return false;
  return true;
}

function inTurn<T>(group: Group, act: () => Promise<T>): Promise<T> {
  const result = group.turn.then(act);
  group.turn = result.catch(() => undefined);
  return result;
}

async function unlessAborted(settled: Promise<unknown>, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = () => {
      signal.removeEventListener("abort", done);
      resolve();
    };
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
    settled.then(done);
  });
}
