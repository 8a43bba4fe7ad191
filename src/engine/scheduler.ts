/**
 * Decides what the next step runs. Pure logic over who waits and who sits where; runs nothing.
 *
 * A step decodes every decoding sequence by one token and reads one chunk of one prompt. Prompts take turns chunk by
 * chunk, so a short one is not stuck behind a long one, and a long one costs running streams one chunk a step.
 */
import { type Seated, type SlotMove, SlotTable } from "./slots.ts";

export interface Schedulable extends Seated {
  /** Prompt tokens still to be read. 0: decoding. */
  readonly numUnread: number;
  /** The most prompt tokens it may read in one run. */
  readonly maxChunk: number;
}

export interface StepPlan<T> {
  /** Slots [0, numDecoding) decode. */
  readonly numDecoding: number;
  readonly prefill: { readonly sequence: T; readonly numTokens: number } | undefined;
}

export interface SchedulerLimits {
  readonly maxBatch: number;
  /** The most prompt tokens a step reads. */
  readonly prefillChunk: number;
}

export class Scheduler<T extends Schedulable> {
  readonly slots: SlotTable<T>;
  readonly #prefillChunk: number;
  readonly #waiting: T[] = [];
  /** Those reading their prompt; the first one's turn is next. */
  readonly #prefilling: T[] = [];

  constructor({ maxBatch, prefillChunk }: SchedulerLimits) {
    this.slots = new SlotTable(maxBatch);
    this.#prefillChunk = prefillChunk;
  }

  get waiting(): readonly T[] {
    return this.#waiting;
  }

  get isIdle(): boolean {
    return this.#waiting.length === 0 && this.slots.numUsed === 0;
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

  /** Takes a sequence out of the queue or out of its slot. */
  remove(sequence: T): SlotMove[] {
    drop(this.#waiting, sequence);
    drop(this.#prefilling, sequence);
    return sequence.slot === -1 ? [] : this.slots.remove(sequence);
  }

  /**
   * What to run now; the prompt that is read moves to the end of the rotation.
   *
   * @param chunkBeside the most prompt tokens to read if anyone decodes.
   */
  plan(chunkBeside = this.#prefillChunk): StepPlan<T> {
    const numDecoding = this.slots.numDecoding;
    const sequence = this.#prefilling.shift();
    if (sequence === undefined) return { numDecoding, prefill: undefined };
    this.#prefilling.push(sequence);
    const chunk = numDecoding === 0 ? this.#prefillChunk : chunkBeside;
    return { numDecoding, prefill: { sequence, numTokens: Math.min(chunk, sequence.maxChunk, sequence.numUnread) } };
  }
}

function drop<T>(list: T[], element: T): void {
  const index = list.indexOf(element);
  if (index >= 0) list.splice(index, 1);
}
