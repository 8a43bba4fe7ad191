/**
 * Decides what the next step runs. Pure logic over the queue and the slots; runs nothing.
 *
 * Requests share the slots evenly, however many sequences each has: a free slot goes to the request
 * with the fewest, and among equals to the one that was served longest ago. If a request waits
 * while another holds at least two slots more, the scheduler preempts a sequence of the latter,
 * which goes back to the queue with its state. A request that is alone may use all slots.
 *
 * A step decodes one token of every decoding sequence and reads some prompt tokens (chunked
 * prefill). Prompts take turns, first between requests and then within them, and share the step's
 * token budget: a short prompt does not wait for a long one, and short prompts are read together.
 *
 * A sequence with a slow consumer is suspended: it gives up its slot until the consumer catches up.
 */
import { type HasSlot, type SlotMove, SlotTable } from "./slots.ts";

/** The sequences of one request. */
export interface SequenceGroup {
  /**
   * When the scheduler last served this group, on a counter of its own. Written by the scheduler
   * only.
   */
  lastTurn: number;
}

export interface Schedulable extends HasSlot {
  /** Ascending in order of arrival. */
  readonly id: number;
  readonly group: SequenceGroup;
  /** Prompt tokens still to be read. 0: decoding. */
  readonly numUnread: number;
  /** The most prompt tokens it may read in one run. */
  readonly maxChunk: number;
  /** Every prompt token needs logits, not only the last one. */
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
  /** Prompt chunks, in slot order. */
  readonly chunks: readonly Chunk<T>[];
}

/** Bounds on the prompt tokens of a step. */
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
  /** Sequences that read their prompt; within a request, the first one is next. */
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

  /** Nothing is running or waiting. */
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
    const sequence = this.#nextWaiting(this.#countSlots());
    if (sequence === undefined) return undefined;
    drop(this.#waiting, sequence);
    this.slots.add(sequence);
    this.#prefilling.push(sequence);
    this.#hadTurn(sequence);
    return sequence;
  }

  /** The sequence to preempt for a waiting one: the latest of the request with the most slots. */
  findPreemptible(): T | undefined {
    if (this.slots.numUsed < this.slots.numSlots) return undefined;
    const numSlotsOf = this.#countSlots();
    const next = this.#nextWaiting(numSlotsOf);
    const most = Math.max(...numSlotsOf.values());
    if (next === undefined || most < (numSlotsOf.get(next.group) ?? 0) + 2) return undefined;
    const candidates = this.slots.running.filter(({ group }) => numSlotsOf.get(group) === most);
    return candidates.reduce((last, sequence) => (sequence.id > last.id ? sequence : last));
  }

  /** Takes a sequence out of its slot, back into the queue. */
  preempt(sequence: T): SlotMove[] {
    drop(this.#prefilling, sequence);
    this.#enqueueAgain(sequence);
    return this.#leaveSlot(sequence);
  }

  promote(sequence: T): SlotMove[] {
    drop(this.#prefilling, sequence);
    return this.slots.promote(sequence);
  }

  /** Takes a sequence that has read its prompt out of its slot until `resume`. */
  suspend(sequence: T): SlotMove[] {
    drop(this.#prefilling, sequence);
    this.#suspended.add(sequence);
    return this.#leaveSlot(sequence);
  }

  resume(sequence: T): void {
    if (this.#suspended.delete(sequence)) this.#enqueueAgain(sequence);
  }

  /** Takes a sequence out of the queue or out of its slot. */
  remove(sequence: T): SlotMove[] {
    drop(this.#waiting, sequence);
    drop(this.#prefilling, sequence);
    this.#suspended.delete(sequence);
    return sequence.slot === -1 ? [] : this.#leaveSlot(sequence);
  }

  /** What to run now. The requests whose prompts are read count as served. */
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

  #leaveSlot(sequence: T): SlotMove[] {
    this.#hadTurn(sequence);
    return this.slots.remove(sequence);
  }

  #hadTurn({ group }: T): void {
    group.lastTurn = ++this.#turn;
  }

  #countSlots(): Map<SequenceGroup, number> {
    const numSlotsOf = new Map<SequenceGroup, number>();
    for (const { group } of this.slots.running) numSlotsOf.set(group, (numSlotsOf.get(group) ?? 0) + 1);
    return numSlotsOf;
  }

  #nextWaiting(numSlotsOf: ReadonlyMap<SequenceGroup, number>): T | undefined {
    const isBefore = (a: SequenceGroup, b: SequenceGroup) =>
      ((numSlotsOf.get(a) ?? 0) - (numSlotsOf.get(b) ?? 0) || a.lastTurn - b.lastTurn) < 0;
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
