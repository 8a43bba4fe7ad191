/**
 * Decides what the next step runs. Pure logic over who waits and who sits where; runs nothing.
 *
 * A step decodes every decoding sequence by one token and reads some tokens of prompts. Prompts take turns: what one leaves of a
 * step's tokens the next one takes, so a short one is not stuck behind a long one, and short ones are read together.
 *
 * A sequence whose reader lags is suspended: it gives up its slot, and when the reader has caught up it waits for one in
 * front of all that came later.
 */
import { type Seated, type SlotMove, SlotTable } from "./slots.ts";

export interface Schedulable extends Seated {
  /** Ascending as they come. */
  readonly id: number;
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
  /** Those reading their prompt; the first one's turn is next. */
  readonly #prefilling: T[] = [];

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
  }

  /** Seats the longest-waiting sequence, if there is one and a slot is free. */
  admit(): T | undefined {
    if (this.slots.numUsed === this.slots.numSlots) return undefined;
    const sequence = this.#waiting.shift();
    if (sequence === undefined) return undefined;
    this.slots.add(sequence);
    this.#prefilling.push(sequence);
    return sequence;
  }

  promote(sequence: T): SlotMove[] {
    drop(this.#prefilling, sequence);
    return this.slots.promote(sequence);
  }

  /** Takes a decoding sequence out of its slot until `resume`. */
  suspend(sequence: T): SlotMove[] {
    this.#suspended.add(sequence);
    return this.slots.remove(sequence);
  }

  resume(sequence: T): void {
    if (!this.#suspended.delete(sequence)) return;
    const later = this.#waiting.findIndex(({ id }) => id > sequence.id);
    this.#waiting.splice(later === -1 ? this.#waiting.length : later, 0, sequence);
  }

  /** Takes a sequence out of the queue or out of its slot. */
  remove(sequence: T): SlotMove[] {
    drop(this.#waiting, sequence);
    drop(this.#prefilling, sequence);
    this.#suspended.delete(sequence);
    return sequence.slot === -1 ? [] : this.slots.remove(sequence);
  }

  /** What to run now; those whose prompts are read move to the end of the rotation. */
  plan({ maxTokens, maxPrompts, maxScored }: PromptLimits): StepPlan<T> {
    const { numDecoding } = this.slots;
    if (this.#prefilling.length === 0) return { numDecoding, chunks: [] }; // nearly every step
    const chunks: Chunk<T>[] = [];
    let [numTokens, numScored] = [0, 0];
    for (const sequence of this.#prefilling) {
      if (chunks.length === maxPrompts || numTokens === maxTokens) break;
      const { isScored, maxChunk, numUnread } = sequence;
      const room = isScored ? Math.min(maxTokens - numTokens, maxScored - numScored) : maxTokens - numTokens;
      const size = Math.min(room, maxChunk, numUnread);
      if (size === 0) continue;
      chunks.push({ sequence, numTokens: size });
      numTokens += size;
      if (isScored) numScored += size;
    }
    for (const { sequence } of chunks) {
      drop(this.#prefilling, sequence);
      this.#prefilling.push(sequence);
    }
    return { numDecoding, chunks: chunks.toSorted((a, b) => a.sequence.slot - b.sequence.slot) };
  }
}

function drop<T>(list: T[], element: T): void {
  const index = list.indexOf(element);
  if (index >= 0) list.splice(index, 1);
}
