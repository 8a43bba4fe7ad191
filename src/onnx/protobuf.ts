/**
 * Protocol Buffers' wire format, writing only: varints, fixed 32-bit floats and length-delimited
 * fields. Knows nothing of ONNX. A message is a list of byte chunks until `finish` joins them, so
 * nested messages cost one copy each.
 */

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const FIXED32 = 5;

const MIN_INT64 = -(2n ** 63n);
const MAX_INT64 = 2n ** 63n - 1n;

/**
 * A signed 64-bit integer as a varint: 1 to 10 bytes, negatives in two's complement. Throws
 * RangeError outside int64.
 */
export function encodeVarint(value: number | bigint): Uint8Array {
  const signed = BigInt(value);
  if (signed < MIN_INT64 || signed > MAX_INT64) throw new RangeError(`${value} does not fit in int64`);
  let rest = BigInt.asUintN(64, signed);
  const bytes: number[] = [];
  while (rest > 0x7fn) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return Uint8Array.from(bytes);
}

/** Writes one message's fields in call order. */
export class MessageWriter {
  readonly #chunks: Uint8Array[] = [];

  int(field: number, value: number | bigint): this {
    this.#tag(field, VARINT);
    this.#chunks.push(encodeVarint(value));
    return this;
  }

  float(field: number, value: number): this {
    this.#tag(field, FIXED32);
    this.#chunks.push(new Uint8Array(Float32Array.of(value).buffer));
    return this;
  }

  string(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  /** Keeps a reference to `value` until `finish`. */
  bytes(field: number, value: Uint8Array): this {
    this.#tag(field, LENGTH_DELIMITED);
    this.#chunks.push(encodeVarint(value.length), value);
    return this;
  }

  message(field: number, write: (message: MessageWriter) => void): this {
    const message = new MessageWriter();
    write(message);
    return this.bytes(field, message.finish());
  }

  finish(): Uint8Array {
    const message = new Uint8Array(this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let offset = 0;
    for (const chunk of this.#chunks) {
      message.set(chunk, offset);
      offset += chunk.length;
    }
    return message;
  }

  #tag(field: number, wireType: number): void {
    this.#chunks.push(encodeVarint(field * 8 + wireType));
  }
}
