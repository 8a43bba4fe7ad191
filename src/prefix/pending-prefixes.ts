/**
 * Prefixes whose states running prefills are about to cache. A prompt that begins with one waits
 * for its state instead of reading the same tokens again: in a burst of requests with one system
 * prompt, the first reads it for all. Knows neither the engine nor the cache: the caller says when
 * a state is cached.
 */

/** Prompts that share this many tokens are planned one after the other. */
const GROUP_TOKENS = 16;

interface PendingPrefix {
  /** Of its request, which waits only for smaller ones: so no two wait for each other. */
  readonly ticket: number;
  readonly tokenIds: readonly number[];
  /** Tokens that the state will have read. */
  readonly length: number;
  /** Resolves when the state is cached, or will not be. */
  readonly done: Promise<void>;
  readonly resolve: () => void;
}

/** Prompts with the same first tokens. */
interface Group {
  readonly pending: Set<PendingPrefix>;
  /** Resolves when the last prompt has been planned. */
  turn: Promise<unknown>;
  numPrompts: number;
}

export class PendingPrefixes {
  readonly #groups = new Map<string, Group>();
  #lastTicket = 0;

  /** For one request. Must be closed, or others may wait for its states forever. */
  open(): RequestPrefixes {
    return new RequestPrefixes(this.#groups, ++this.#lastTicket);
  }

  /** Groups that somebody reads or waits for. */
  get size(): number {
    return this.#groups.size;
  }
}

/** The prefixes of one request. */
export class RequestPrefixes {
  readonly #groups: Map<string, Group>;
  readonly #ticket: number;
  readonly #closers: (() => void)[] = [];

  constructor(groups: Map<string, Group>, ticket: number) {
    this.#groups = groups;
    this.#ticket = ticket;
  }

  /**
   * Waits while an earlier request reads a prefix of this prompt; then `plan` says at which lengths
   * this one will cache states.
   * @param plan never runs for two prompts of one group at once
   * @returns the plan, and a function to call when the state at a length is cached or cannot be
   */
  async enter<Plan extends { readonly lengths: readonly number[] }>(
    scope: string,
    tokenIds: readonly number[],
    signal: AbortSignal,
    plan: () => Promise<Plan>,
  ): Promise<{ readonly plan: Plan; readonly resolve: (length: number) => void }> {
    const group = this.#join(`${scope}:${tokenIds.slice(0, GROUP_TOKENS).join()}`);
    const own: PendingPrefix[] = [];
    const resolve = (isResolved: (prefix: PendingPrefix) => boolean) => {
      for (const prefix of own.filter(isResolved)) {
        group.pending.delete(prefix);
        prefix.resolve();
      }
    };
    this.#closers.push(() => resolve(() => true));
    for (;;) {
      const next = await inTurn(group, async () => {
        const awaited = signal.aborted ? undefined : this.#longest(group, tokenIds);
        if (awaited !== undefined) return awaited;
        const planned = await plan();
        own.push(...planned.lengths.map((length) => pendingPrefix(this.#ticket, tokenIds, length)));
        for (const prefix of own) group.pending.add(prefix);
        return { plan: planned };
      });
      if ("plan" in next) return { ...next, resolve: (length) => resolve((prefix) => prefix.length === length) };
      await doneOrAborted(next.done, signal);
    }
  }

  /** What is not cached by now will not be. Idempotent. */
  close(): void {
    for (const close of this.#closers.splice(0)) close();
  }

  #join(key: string): Group {
    const group = this.#groups.get(key) ?? { pending: new Set(), turn: Promise.resolve(), numPrompts: 0 };
    this.#groups.set(key, group);
    group.numPrompts++;
    this.#closers.push(() => {
      if (--group.numPrompts === 0) this.#groups.delete(key);
    });
    return group;
  }

  /** The longest prefix of the prompt that an earlier request is about to cache. */
  #longest({ pending }: Group, tokenIds: readonly number[]): PendingPrefix | undefined {
    let longest: PendingPrefix | undefined;
    for (const prefix of pending) {
      if (prefix.ticket >= this.#ticket || prefix.length >= tokenIds.length) continue;
      if (prefix.length > (longest?.length ?? 0) && isPrefix(prefix, tokenIds)) longest = prefix;
    }
    return longest;
  }
}

function pendingPrefix(ticket: number, tokenIds: readonly number[], length: number): PendingPrefix {
  let resolve = () => {};
  const done = new Promise<void>((resolveDone) => {
    resolve = resolveDone;
  });
  return { ticket, tokenIds, length, done, resolve };
}

function isPrefix({ tokenIds, length }: PendingPrefix, ofIds: readonly number[]): boolean {
  // From the end, where prompts of one group are most likely to differ.
  for (let i = length - 1; i >= 0; i--) if (tokenIds[i] !== ofIds[i]) return false;
  return true;
}

function inTurn<T>(group: Group, act: () => Promise<T>): Promise<T> {
  const result = group.turn.then(act);
  group.turn = result.catch(() => undefined);
  return result;
}

async function doneOrAborted(done: Promise<void>, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const finish = () => {
      signal.removeEventListener("abort", finish);
      resolve();
    };
    signal.addEventListener("abort", finish);
    if (signal.aborted) finish();
    done.then(finish);
  });
}
