/**
 * Which sequence has which slot. Decoding sequences hold slots [0, D), those reading their prompt
 * [D, D + P), so that a decode batch is one contiguous range. Pure bookkeeping: returns the moves
 * that the runner has to make, in order.
 */
import { strict as assert } from "node:assert";

export interface HasSlot {
  /** -1: none. Written by the table only. */
  slot: number;
}

export type SlotMove =
  | { readonly type: "copy"; readonly from: number; readonly to: number }
  | { readonly type: "swap"; readonly a: number; readonly b: number };

export class SlotTable<T extends HasSlot> {
  readonly numSlots: number;
  readonly #running: T[] = [];
  #numDecoding = 0;

  constructor(numSlots: number) {
    this.numSlots = numSlots;
  }

  get numUsed(): number {
    return this.#running.length;
  }

  get numDecoding(): number {
    return this.#numDecoding;
  }

  /** By slot. */
  get running(): readonly T[] {
    return this.#running;
  }

  /** Assigns the first free slot, after all others; it still holds an old state. */
  add(sequence: T): void {
    assert(sequence.slot === -1 && this.#running.length < this.numSlots);
    sequence.slot = this.#running.length;
    this.#running.push(sequence);
  }

  /** The sequence has read its prompt: it joins the decoding ones. */
  promote(sequence: T): SlotMove[] {
    const from = sequence.slot;
    const to = this.#numDecoding;
    assert(from >= to, "decoding already");
    this.#numDecoding++;
    if (from === to) return [];
    this.#place(this.#running[to]!, from);
    this.#place(sequence, to);
    return [{ type: "swap", a: from, b: to }];
  }

  /** Closes the gap: the last decoding sequence fills it, and the last of all fills that one's. */
  remove(sequence: T): SlotMove[] {
    const moves: SlotMove[] = [];
    const fill = (gap: number, last: number): number => {
      if (gap !== last) {
        moves.push({ type: "copy", from: last, to: gap });
        this.#place(this.#running[last]!, gap);
      }
      return last;
    };
    let gap = sequence.slot;
    if (gap < this.#numDecoding) gap = fill(gap, --this.#numDecoding);
    fill(gap, this.#running.length - 1);
    this.#running.pop();
    sequence.slot = -1;
    return moves;
  }

  /** @throws if the table contradicts itself. */
  check(): void {
    assert(
      this.#numDecoding >= 0 && this.#numDecoding <= this.#running.length && this.#running.length <= this.numSlots,
    );
    for (const [slot, sequence] of this.#running.entries()) assert.equal(sequence.slot, slot);
  }

  #place(sequence: T, slot: number): void {
    this.#running[slot] = sequence;
    sequence.slot = slot;
  }
}
