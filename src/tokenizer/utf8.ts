/** UTF-8 in pieces: where the last complete character ends. */

/** A character has at most four bytes, so at most three can be incomplete. */
export const MAX_INCOMPLETE_BYTES = 3;

/**
 * How many bytes at the end begin a character that later bytes may complete: 0 to 3. Bytes that
 * nothing can make valid (a stray continuation byte, an overlong form, a surrogate) do not count. A
 * cut there never changes what a lossy decoder makes of the whole (the Unicode standard, table
 * 3-7).
 */
export function incompleteTail(bytes: Uint8Array): number {
  const end = bytes.length;
  for (let numBytes = 1; numBytes <= Math.min(MAX_INCOMPLETE_BYTES, end); numBytes++) {
    const byte = bytes[end - numBytes]!;
    if (isContinuation(byte)) continue;
    if (sequenceLength(byte) <= numBytes) return 0;
    return numBytes === 1 || isSecondByte(byte, bytes[end - numBytes + 1]!) ? numBytes : 0;
  }
  return 0;
}

/** Lossy: each maximal broken part becomes one U+FFFD. A byte order mark is text. */
export function decodeUtf8(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
}

function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}

/** Bytes of the character that this byte begins; 0 if it begins none. */
function sequenceLength(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead < 0xc2) return 0;
  if (lead < 0xe0) return 2;
  if (lead < 0xf0) return 3;
  return lead < 0xf5 ? 4 : 0;
}

function isSecondByte(lead: number, second: number): boolean {
  if (lead === 0xe0) return second >= 0xa0;
  if (lead === 0xed) return second < 0xa0;
  if (lead === 0xf0) return second >= 0x90;
  if (lead === 0xf4) return second < 0x90;
  return true;
}
