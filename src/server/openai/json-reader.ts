/**
 * Reads JSON from clients, bounded before it is parsed: a body of a few megabytes can hold millions
 * of objects, or nested brackets, and JSON.parse would block the event loop for seconds. Bytes are
 * checked and decoded as they arrive.
 */
import { DenseMambaError } from "../../errors.ts";
import type { JsonBounds } from "../deps.ts";
import { isRecord } from "./validate.ts";

const [QUOTE, BACKSLASH, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

export class JsonReader {
  readonly #bounds: JsonBounds;
  // Drops a byte order mark, which RFC 8259 allows.
  readonly #decoder = new TextDecoder();
  #text = "";
  #inString = false;
  #isEscaped = false;
  #depth = 0;
  #numItems = 0;
  #numStrings = 0;
  #numMembers = 0;

  constructor(bounds: JsonBounds) {
    this.#bounds = bounds;
  }

  /** @throws `invalid_value` as soon as a bound is passed */
  push(bytes: Uint8Array): void {
    this.#count(bytes);
    this.#text += this.#decoder.decode(bytes, { stream: true });
  }

  /** After the last bytes. @throws `invalid_value` */
  parse(): unknown {
    const text = this.#text + this.#decoder.decode();
    try {
      const value: unknown = JSON.parse(text);
      restoreSeed(value, text);
      return value;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new DenseMambaError("invalid_value", `the body is not valid JSON: ${reason}`);
    }
  }

  /**
   * Tells strings from the rest, and knows no more grammar: JSON.parse refuses what is not JSON.
   */
  #count(bytes: Uint8Array): void {
    const { maxDepth, maxItems, maxStrings, maxMembers } = this.#bounds;
    let [inString, isEscaped, depth] = [this.#inString, this.#isEscaped, this.#depth];
    let [numItems, numStrings, numMembers] = [this.#numItems, this.#numStrings, this.#numMembers];
    for (let index = 0; index < bytes.length; index++) {
      const byte = bytes[index];
      if (inString) {
        if (isEscaped) isEscaped = false;
        else if (byte === BACKSLASH) isEscaped = true;
        else if (byte === QUOTE) inString = false;
        continue;
      }
      switch (byte) {
        case QUOTE:
          inString = true;
          numStrings++;
          break;
        case OPEN_LIST:
        case OPEN_OBJECT:
          numItems++;
          if (++depth > maxDepth) throw tooMuch("be nested", maxDepth, "levels deep");
          break;
        case CLOSE_LIST:
        case CLOSE_OBJECT:
          depth--;
          break;
        case COMMA:
          numItems++;
          break;
        case COLON:
          numMembers++;
          break;
      }
    }
    if (numItems > maxItems) throw tooMuch("hold", maxItems, "values");
    if (numStrings > maxStrings) throw tooMuch("hold", maxStrings, "strings");
    if (numMembers > maxMembers) throw tooMuch("hold", maxMembers, "members of objects");
    [this.#inString, this.#isEscaped, this.#depth] = [inString, isEscaped, depth];
    [this.#numItems, this.#numStrings, this.#numMembers] = [numItems, numStrings, numMembers];
  }
}

/**
 * A seed of 64 bits does not fit into a number: a rounded one is read from the text again. NOTE:
 * quotes inside a string are escaped, so whatever looks like a member is one. It may belong to
 * another object, but only a seed that rounds to the same number is taken.
 */
function restoreSeed(value: unknown, text: string): void {
  if (!isRecord(value) || !Number.isInteger(value.seed) || Number.isSafeInteger(value.seed)) return;
  const digits = [...text.matchAll(/"seed"\s*:\s*(-?\d+)(?![\d.eE])/g)].map(([, found]) => found!);
  const exact = digits.findLast((found) => Number(found) === value.seed);
  value.seed = BigInt(exact ?? (value.seed as number));
}

/** @throws `invalid_value` */
export function parseJson(bytes: Uint8Array, bounds: JsonBounds): unknown {
  const reader = new JsonReader(bounds);
  reader.push(bytes);
  return reader.parse();
}

function tooMuch(verb: string, bound: number, what: string): DenseMambaError {
  return new DenseMambaError("invalid_value", `the body's JSON must ${verb} at most ${bound} ${what}; got more`);
}
