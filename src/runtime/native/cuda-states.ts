/**
 * The states of all slots in a CUDA device's memory: as `SlotStates`, one buffer a tensor,
 * [numSlots, ...shape]. A step reads and writes them where they are; only a snapshot crosses to the
 * host, and is waited for. Knows nothing of ONNX Runtime.
 */
import { strict as assert } from "node:assert";
import { type StateSpec, stateBytes, tensorBytes } from "../../model/state.ts";
import { assertSlot, assertStateLength } from "../slot-states.ts";
import { callEach, callEachQuietly } from "./call-each.ts";
import type { Copy, CudaStream } from "./cuda-stream.ts";
import { addressOf } from "./ort-table.ts";

export interface CudaTensor {
  readonly name: string;
  /** As ONNX Runtime names it. */
  readonly type: "float32" | "float16";
  /** Of one slot. */
  readonly shape: readonly number[];
  readonly bytesPerSlot: number;
  /** Of slot 0, on the device. */
  readonly address: bigint;
}

export class CudaStates {
  readonly numSlots: number;
  /** In the order of the state spec. */
  readonly tensors: readonly CudaTensor[];
  readonly #stream: CudaStream;
  readonly #slotBytes: number;
  /** All tensors of one slot, for swapping. */
  readonly #scratch: bigint;

  /** @throws `runtime_fault` if the device does not have the memory. */
  constructor(spec: StateSpec, numSlots: number, stream: CudaStream) {
    assert(Number.isSafeInteger(numSlots) && numSlots >= 1, `numSlots must be at least 1, got ${numSlots}`);
    this.numSlots = numSlots;
    this.#stream = stream;
    this.#slotBytes = stateBytes(spec);
    const taken: bigint[] = [];
    const take = (numBytes: number): bigint => {
      const address = stream.allocate(numBytes);
      taken.push(address);
      return address;
    };
    try {
      this.#scratch = take(Math.max(1, this.#slotBytes));
      this.tensors = spec.map((tensor) => {
        const { name, shape, dtype } = tensor;
        const bytesPerSlot = tensorBytes(tensor);
        const type = dtype === "f16" ? "float16" : "float32";
        return { name, type, shape, bytesPerSlot, address: take(numSlots * bytesPerSlot) };
      });
    } catch (error) {
      callEachQuietly(taken.map((address) => () => stream.free(address)));
      throw error;
    }
  }

  clear(slot: number): void {
    this.#stream.zero(this.#parts(slot).map(({ at, bytesPerSlot }) => ({ address: at, numBytes: bytesPerSlot })));
  }

  copy(from: number, to: number): void {
    this.#stream.copy(this.#between(from, to));
  }

  swap(a: number, b: number): void {
    this.#stream.copy([...this.#toRow(a, this.#scratch), ...this.#between(b, a), ...this.#fromRow(b, this.#scratch)]);
  }

  /** A copy, tensors in the order of the state spec. */
  read(slot: number): Uint8Array<ArrayBuffer> {
    const state = new Uint8Array(new ArrayBuffer(Math.max(1, this.#slotBytes)));
    this.#stream.copyBlocking(this.#toRow(slot, addressOf(state)));
    return state.subarray(0, this.#slotBytes);
  }

  /** @throws `invalid_snapshot` if the length is not that of one slot's state. */
  write(slot: number, state: Uint8Array): void {
    assertStateLength(state, this.#slotBytes);
    const held = new Uint8Array(new ArrayBuffer(Math.max(1, state.length))); // of an address that stays
    held.set(state);
    this.#stream.copyBlocking(this.#fromRow(slot, addressOf(held)));
  }

  release(): void {
    const addresses = [this.#scratch, ...this.tensors.map(({ address }) => address)];
    callEach(addresses.map((address) => () => this.#stream.free(address)));
  }

  #parts(slot: number): (CudaTensor & { readonly at: bigint })[] {
    assertSlot(slot, this.numSlots);
    return this.tensors.map((tensor) => ({ ...tensor, at: tensor.address + BigInt(slot * tensor.bytesPerSlot) }));
  }

  #between(from: number, to: number): Copy[] {
    const targets = this.#parts(to);
    return this.#parts(from).map(({ at, bytesPerSlot }, i) => ({
      to: targets[i]!.at,
      from: at,
      numBytes: bytesPerSlot,
    }));
  }

  /** From the slot to `row`, tensor after tensor. */
  #toRow(slot: number, row: bigint): Copy[] {
    let to = row;
    return this.#parts(slot).map(({ at, bytesPerSlot }) => {
      const copy = { to, from: at, numBytes: bytesPerSlot };
      to += BigInt(copy.numBytes);
      return copy;
    });
  }

  #fromRow(slot: number, row: bigint): Copy[] {
    return this.#toRow(slot, row).map(({ to, from, numBytes }) => ({ to: from, from: to, numBytes }));
  }
}
