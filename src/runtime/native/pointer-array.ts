/**
 * C arrays of pointers, in memory that stays where it is for as long as the object lives: what
 * koffi hands to `Run`.
 */
import { addressOf } from "./ort-table.ts";

export class PointerArray {
  readonly length: number;
  /** At least one long, so that an empty array has an address too. */
  readonly values: BigUint64Array;
  readonly address: bigint;

  /** All null. */
  constructor(length: number) {
    this.length = length;
    this.values = new BigUint64Array(new ArrayBuffer(Math.max(1, length) * BigUint64Array.BYTES_PER_ELEMENT));
    this.address = addressOf(this.values);
  }

  /** Of the element at `index`: the array without those before it. */
  addressFrom(index: number): bigint {
    return index === 0 ? this.address : this.address + BigInt(index * BigUint64Array.BYTES_PER_ELEMENT);
  }
}

/** `const char *names[]` */
export class NameArray extends PointerArray {
  /** The strings themselves, NUL-terminated, one after another. Held for their addresses' sake. */
  readonly #text: Uint8Array;

  constructor(names: readonly string[]) {
    super(names.length);
    const encoded = names.map((name) => new TextEncoder().encode(`${name}\0`));
    this.#text = new Uint8Array(new ArrayBuffer(encoded.reduce((sum, { length }) => sum + length, 1)));
    const start = addressOf(this.#text);
    let offset = 0;
    for (const [index, bytes] of encoded.entries()) {
      this.#text.set(bytes, offset);
      this.values[index] = start + BigInt(offset);
      offset += bytes.length;
    }
  }
}
