import fc from "fast-check";
import { expect, test } from "vitest";
import { decodeUtf8, incompleteTail } from "../../src/tokenizer/utf8.ts";

/** Bytes that meet in real and broken UTF-8 more often than chance would have it. */
const byte = fc.oneof(
  fc.constantFrom(0x41, 0x80, 0x9f, 0xa0, 0xbf, 0xc2, 0xe0, 0xe2, 0xed, 0xf0, 0xf4, 0xf5),
  fc.integer({ min: 0, max: 255 }),
);
const bytes = fc.array(byte, { maxLength: 12 }).map((values) => Uint8Array.from(values));

test("cutting off the incomplete tail never changes what the whole decodes to", () => {
  fc.assert(
    fc.property(bytes, bytes, (first, second) => {
      const cut = first.length - incompleteTail(first);
      const rest = Uint8Array.from([...first.subarray(cut), ...second]);
      const whole = Uint8Array.from([...first, ...second]);
      expect(decodeUtf8(first.subarray(0, cut)) + decodeUtf8(rest)).toBe(decodeUtf8(whole));
    }),
    { numRuns: 2000 },
  );
});

test("a tail is held exactly as long as some continuation would make it a character", () => {
  fc.assert(
    fc.property(bytes, (given) => {
      const tail = given.subarray(given.length - incompleteTail(given));
      if (tail.length > 0) expect(canBeCompleted(tail)).toBe(true);
      for (let held = tail.length + 1; held <= Math.min(3, given.length); held++) {
        expect(canBeCompleted(given.subarray(given.length - held))).toBe(false);
      }
    }),
    { numRuns: 300 },
  );
});

test("bytes decode as the platform's own decoder has it, byte order marks included", () => {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  fc.assert(
    fc.property(bytes, (given) => {
      const marked = Uint8Array.from([0xef, 0xbb, 0xbf, ...given]);
      expect(decodeUtf8(marked)).toBe(decoder.decode(marked));
    }),
    { numRuns: 1000 },
  );
});

/**
 * By trying: a few continuation bytes stand for all, for the second byte is where the rules differ.
 */
function canBeCompleted(tail: Uint8Array): boolean {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const candidates = [0x80, 0x90, 0xa0, 0xbf];
  const extend = (sofar: number[], left: number): boolean => {
    if (sofar.length > tail.length) {
      try {
        return [...decoder.decode(Uint8Array.from(sofar))].length === 1;
      } catch {
        // Not yet, or never.
      }
    }
    return left > 0 && candidates.some((next) => extend([...sofar, next], left - 1));
  };
  return extend([...tail], 3);
}
