/**
 * The states of all slots in host memory: one buffer per state tensor, [numSlots, ...shape], so
 * that a range of slots is one contiguous tensor and nothing is gathered or scattered. For both
 * runners; knows nothing of ONNX Runtime.
 */
import { strict as assert } from "node:assert";
import { DenseMambaError } from "../errors.ts";
import { numElements, type StateSpec, stateBytes, tensorBytes } from "../model/state.ts";

/** Halves are stored as bits: nothing here computes with them. */
export type StateArray = Float32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>;

export interface SlotTensor {
  readonly name: string;
  /** As ONNX Runtime names it. */
  readonly type: "float32" | "float16";
  /** Of one slot. */
  readonly shape: readonly number[];
  readonly elementsPerSlot: number;
  /** [numSlots, ...shape]. Starts as zeros; its memory never moves. */
  readonly data: StateArray;
}

export class SlotStates {
  readonly numSlots: number;
  /** In the order of the state spec. */
  readonly tensors: readonly SlotTensor[];
  readonly #slotBytes: number;
  /** One tensor of one slot, for swapping. */
  readonly #scratch: Uint8Array;

  constructor(spec: StateSpec, numSlots: number) {
    assert(Number.isSafeInteger(numSlots) && numSlots >= 1, `numSlots must be at least 1, got ${numSlots}`);
    this.numSlots = numSlots;
    this.#slotBytes = stateBytes(spec);
    this.tensors = spec.map((tensor) => {
      const { name, shape, dtype } = tensor;
      const elementsPerSlot = numElements(shape);
      const buffer = new ArrayBuffer(numSlots * tensorBytes(tensor));
      return dtype === "f16"
        ? { name, type: "float16", shape, elementsPerSlot, data: new Uint16Array(buffer) }
        : { name, type: "float32", shape, elementsPerSlot, data: new Float32Array(buffer) };
    });
    this.#scratch = new Uint8Array(Math.max(0, ...spec.map(tensorBytes)));
  }

  clear(slot: number): void {
    this.#assertSlot(slot);
    for (const tensor of this.tensors) slotBytes(tensor, slot).fill(0);
  }

  copy(from: number, to: number): void {
    this.#assertSlot(from);
    this.#assertSlot(to);
    for (const tensor of this.tensors) slotBytes(tensor, to).set(slotBytes(tensor, from));
  }

  swap(a: number, b: number): void {
    this.#assertSlot(a);
    this.#assertSlot(b);
    for (const tensor of this.tensors) {
      const held = this.#scratch.subarray(0, slotBytes(tensor, a).length);
      held.set(slotBytes(tensor, a));
      slotBytes(tensor, a).set(slotBytes(tensor, b));
      slotBytes(tensor, b).set(held);
    }
  }

  /** A copy, tensors in the order of the state spec. */
  read(slot: number): Uint8Array<ArrayBuffer> {
    this.#assertSlot(slot);
    const state = new Uint8Array(this.#slotBytes);
    let offset = 0;
    for (const tensor of this.tensors) {
      const bytes = slotBytes(tensor, slot);
      state.set(bytes, offset);
      offset += bytes.length;
    }
    return state;
  }

  /** @throws `invalid_snapshot` if the length is not that of one slot's state. */
  write(slot: number, state: Uint8Array): void {
    this.#assertSlot(slot);
    assertStateLength(state, this.#slotBytes);
    let offset = 0;
    for (const tensor of this.tensors) {
      const bytes = slotBytes(tensor, slot);
      bytes.set(state.subarray(offset, offset + bytes.length));
      offset += bytes.length;
    }
  }

  #assertSlot(slot: number): void {
    assertSlot(slot, this.numSlots);
  }
}

export function assertSlot(slot: number, numSlots: number): void {
  assert(Number.isSafeInteger(slot) && slot >= 0 && slot < numSlots, `slot must be 0 to ${numSlots - 1}, got ${slot}`);
}

/** @throws `invalid_snapshot` if the length is not that of one slot's state. */
export function assertStateLength(state: Uint8Array, slotBytes: number): void {
  if (state.length === slotBytes) return;
  throw new DenseMambaError(
    "invalid_snapshot",
    `a state of this model is ${slotBytes} bytes, the snapshot holds ${state.length}`,
  );
}

/** Slots [firstSlot, firstSlot + numSlots) of one tensor; a view, not a copy. */
export function slotRange(tensor: SlotTensor, firstSlot: number, numSlots: number): StateArray {
  return tensor.data.subarray(firstSlot * tensor.elementsPerSlot, (firstSlot + numSlots) * tensor.elementsPerSlot);
}

function slotBytes(tensor: SlotTensor, slot: number): Uint8Array {
  const view = slotRange(tensor, slot, 1);
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
