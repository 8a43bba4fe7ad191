/**
 * Decides what the next step runs. Pure logic over who waits and who sits where; runs nothing.
 *
 * Requests share the slots evenly, however many sequences each has: a free slot goes to the request that holds the fewest, and of
 * those with as many to the one whose turn is longest ago. Where one waits and another holds two slots more, a sequence of that one
 * is preempted: it gives up its slot and waits again, with its state. A request that is alone has all slots.
 *
 * A step decodes every decoding sequence by one token and reads some tokens of prompts. Prompts take turns, first between requests
 * and then within them: what one leaves of a step's tokens the next one takes, so a short one is not stuck behind a long one, and
 * short ones are read together.
 *
 * A sequence whose reader lags is suspended: it gives up its slot, and waits for another when the reader has caught up.
 */
import { type Seated, type SlotMove, SlotTable } from "./slots.ts";

/** The sequences of one request. */
export interface SequenceGroup {
  /** Counts up, among all groups, as a sequence comes, gets a slot, reads or leaves. Written by the scheduler only. */
  lastTurn: number;
}

export interface Schedulable extends Seated {
  /** Ascending as they come. */
  readonly id: number;
  readonly group: SequenceGroup;
  /** Prompt tokens still to be read. 0: decoding. */
  readonly numUnread: number;
  /** The most prompt tokens it may read in one run. */
  readonly maxChunk: number;
  /** Every token that it reads gets logits, not the last one alone. */
  readonly isScored: boolean;
}

/** The next tokens of one prompt. */
export interface Chunk<T> {
  readonly sequence: T;
  readonly numTokens: number;
}

export interface StepPlan<T> {
  /** Slots [0, numDecoding) decode. */
  readonly numDecoding: number;
  /** What is read of prompts, in the order of their slots. */
  readonly chunks: readonly Chunk<T>[];
}

/** Of what a step reads of prompts. */
export interface PromptLimits {
  readonly maxTokens: number;
  readonly maxPrompts: number;
  /** Tokens that get logits. */
  readonly maxScored: number;
}

export class Scheduler<T extends Schedulable> {
  readonly slots: SlotTable<T>;
  /** By arrival. */
  readonly #waiting: T[] = [];
  readonly #suspended = new Set<T>();
  /** Those reading their prompt; of one request, the first one's turn is next. */
  readonly #prefilling: T[] = [];
  #turn = 0;

  constructor(maxBatch: number) {
    this.slots = new SlotTable(maxBatch);
  }

  get waiting(): readonly T[] {
    return this.#waiting;
  }

  get suspended(): ReadonlySet<T> {
    return this.#suspended;
  }

  /** Nothing runs or can be started. */
  get isIdle(): boolean {
    return this.#waiting.length === 0 && this.slots.numUsed === 0;
  }

  /** There are no sequences. */
  get isEmpty(): boolean {
    return this.isIdle && this.#suspended.size === 0;
  }

  enqueue(sequence: T): void {
    this.#waiting.push(sequence);
    this.#hadTurn(sequence);
  }

  /** Gives a waiting sequence a slot, if there is one and a slot is free. */
  admit(): T | undefined {
    if (this.slots.numUsed === this.slots.numSlots) return undefined;
    const sequence = this.#nextWaiting(this.#countSeats());
    if (sequence === undefined) return undefined;
    drop(this.#waiting, sequence);
    this.slots.add(sequence);
    this.#prefilling.push(sequence);
    this.#hadTurn(sequence);
    return sequence;
  }

  /** Whoever should give its slot to one that waits: of the request that holds the most, the last to come. */
  findPreemptible(): T | undefined {
    if (this.slots.numUsed < this.slots.numSlots) return undefined;
    const numSeats = this.#countSeats();
    const next = this.#nextWaiting(numSeats);
    const most = Math.max(...numSeats.values());
    if (next === undefined || most < (numSeats.get(next.group) ?? 0) + 2) return undefined;
    const candidates = this.slots.seated.filter(({ group }) => numSeats.get(group) === most);
    return candidates.reduce((last, sequence) => (sequence.id > last.id ? sequence : last));
  }

  /** Takes a sequence out of its slot, back into the queue. */
  preempt(sequence: T): SlotMove[] {
    drop(this.#prefilling, sequence);
    this.#enqueueAgain(sequence);
    return this.#unseat(sequence);
  }

  promote(sequence: T): SlotMove[] {
    drop(this.#prefilling, sequence);
    return this.slots.promote(sequence);
  }

  /** Takes a decoding sequence out of its slot until `resume`. */
  suspend(sequence: T): SlotMove[] {
    this.#suspended.add(sequence);
    return this.#unseat(sequence);
  }

  resume(sequence: T): void {
    if (this.#suspended.delete(sequence)) this.#enqueueAgain(sequence);
  }

  /** Takes a sequence out of the queue or out of its slot. */
  remove(sequence: T): SlotMove[] {
    drop(this.#waiting, sequence);
    drop(this.#prefilling, sequence);
    this.#suspended.delete(sequence);
    return sequence.slot === -1 ? [] : this.#unseat(sequence);
  }

  /** What to run now. Those whose prompts are read have had their turn. */
  plan({ maxTokens, maxPrompts, maxScored }: PromptLimits): StepPlan<T> {
    const { numDecoding } = this.slots;
    if (this.#prefilling.length === 0) return { numDecoding, chunks: [] }; // nearly every step
    const chunks: Chunk<T>[] = [];
    let [numTokens, numScored] = [0, 0];
    const unread = [...this.#prefilling];
    while (unread.length > 0 && chunks.length < maxPrompts && numTokens < maxTokens) {
      const sequence = unread.reduce((next, other) => (other.group.lastTurn < next.group.lastTurn ? other : next));
      drop(unread, sequence);
      const { isScored, maxChunk, numUnread } = sequence;
      const room = isScored ? Math.min(maxTokens - numTokens, maxScored - numScored) : maxTokens - numTokens;
      const size = Math.min(room, maxChunk, numUnread);
      if (size === 0) continue;
      chunks.push({ sequence, numTokens: size });
      numTokens += size;
      if (isScored) numScored += size;
      drop(this.#prefilling, sequence);
      this.#prefilling.push(sequence);
      this.#hadTurn(sequence);
    }
    return { numDecoding, chunks: chunks.toSorted((a, b) => a.sequence.slot - b.sequence.slot) };
  }

  #enqueueAgain(sequence: T): void {
    const later = this.#waiting.findIndex(({ id }) => id > sequence.id);
    this.#waiting.splice(later === -1 ? this.#waiting.length : later, 0, sequence);
  }

  #unseat(sequence: T): SlotMove[] {
    this.#hadTurn(sequence);
    return this.slots.remove(sequence);
  }

  #hadTurn({ group }: T): void {
    group.lastTurn = ++this.#turn;
  }

  #countSeats(): Map<SequenceGroup, number> {
    const numSeats = new Map<SequenceGroup, number>();
    for (const { group } of this.slots.seated) numSeats.set(group, (numSeats.get(group) ?? 0) + 1);
    return numSeats;
  }

  #nextWaiting(numSeats: ReadonlyMap<SequenceGroup, number>): T | undefined {
    const isBefore = (a: SequenceGroup, b: SequenceGroup) =>
      ((numSeats.get(a) ?? 0) - (numSeats.get(b) ?? 0) || a.lastTurn - b.lastTurn) < 0;
    let next: T | undefined;
    for (const sequence of this.#waiting) {
      if (next === undefined || isBefore(sequence.group, next.group)) next = sequence;
    }
    return next;
  }
}

function drop<T>(list: T[], element: T): void {
  const index = list.indexOf(element);
  if (index >= 0) list.splice(index, 1);
}
