/**
 * The reading side of protobuf that the encoder's tests compare against; written from the wire
 * format's description.
 */

export interface Field {
  readonly number: number;
  readonly wireType: number;
  /** varint: the value; length-delimited and fixed: the bytes. */
  readonly value: bigint | Uint8Array;
}

/** [value as unsigned 64-bit, offset after it] */
export function decodeVarint(bytes: Uint8Array, offset: number): [bigint, number] {
  let value = 0n;
  for (let i = 0; ; i++) {
    const byte = bytes[offset + i];
    if (byte === undefined || i === 10) throw new Error("varint does not end");
    value |= BigInt(byte & 0x7f) << BigInt(7 * i);
    if (byte < 0x80) return [BigInt.asUintN(64, value), offset + i + 1];
  }
}

export function decodeMessage(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let offset = 0;
  while (offset < bytes.length) {
    let tag: bigint;
    [tag, offset] = decodeVarint(bytes, offset);
    const number = Number(tag >> 3n);
    const wireType = Number(tag & 7n);
    if (wireType === 0) {
      let value: bigint;
      [value, offset] = decodeVarint(bytes, offset);
      fields.push({ number, wireType, value });
      continue;
    }
    let length = 4n;
    if (wireType === 2) [length, offset] = decodeVarint(bytes, offset);
    else if (wireType !== 5) throw new Error(`wire type ${wireType}`);
    const end = offset + Number(length);
    if (end > bytes.length) throw new Error("field runs past the end");
    fields.push({ number, wireType, value: bytes.slice(offset, end) });
    offset = end;
  }
  return fields;
}
