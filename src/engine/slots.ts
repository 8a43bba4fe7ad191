/**
 * Who sits where: decoding sequences hold slots [0, D), those reading their prompt [D, D + P), so that a decode pass is
 * one contiguous range. Pure bookkeeping: changes of seat are returned as moves for the runner to make, in order.
 */
import { strict as assert } from "node:assert";

export interface Seated {
  /** -1: none. Written by the table only. */
  slot: number;
}

export type SlotMove =
  | { readonly type: "copy"; readonly from: number; readonly to: number }
  | { readonly type: "swap"; readonly a: number; readonly b: number };

export class SlotTable<T extends Seated> {
  readonly numSlots: number;
  readonly #seats: T[] = [];
  #numDecoding = 0;

  constructor(numSlots: number) {
    this.numSlots = numSlots;
  }

  get numUsed(): number {
    return this.#seats.length;
  }

  get numDecoding(): number {
    return this.#numDecoding;
  }

  /** By slot. */
  get seated(): readonly T[] {
    return this.#seats;
  }

  /** Gives the first free slot, behind all others; the state in it is somebody else's. */
  add(sequence: T): void {
    assert(sequence.slot === -1 && this.#seats.length < this.numSlots);
    sequence.slot = this.#seats.length;
    this.#seats.push(sequence);
  }

  /** The sequence has read its prompt: it joins the decoding ones. */
  promote(sequence: T): SlotMove[] {
    const from = sequence.slot;
    const to = this.#numDecoding;
    assert(from >= to, "decoding already");
    this.#numDecoding++;
    if (from === to) return [];
    this.#seat(this.#seats[to]!, from);
    this.#seat(sequence, to);
    return [{ type: "swap", a: from, b: to }];
  }

  /** Closes the gap: the last decoding sequence fills it, and the last of all fills that one's. */
  remove(sequence: T): SlotMove[] {
    const moves: SlotMove[] = [];
    const fill = (gap: number, last: number): number => {
      if (gap !== last) {
        moves.push({ type: "copy", from: last, to: gap });
        this.#seat(this.#seats[last]!, gap);
      }
      return last;
    };
    let gap = sequence.slot;
    if (gap < this.#numDecoding) gap = fill(gap, --this.#numDecoding);
    fill(gap, this.#seats.length - 1);
    this.#seats.pop();
    sequence.slot = -1;
    return moves;
  }

  /** @throws if the table contradicts itself. */
  check(): void {
    assert(this.#numDecoding >= 0 && this.#numDecoding <= this.#seats.length && this.#seats.length <= this.numSlots);
    for (const [slot, sequence] of this.#seats.entries()) assert.equal(sequence.slot, slot);
  }

  #seat(sequence: T, slot: number): void {
    this.#seats[slot] = sequence;
    sequence.slot = slot;
  }
}
