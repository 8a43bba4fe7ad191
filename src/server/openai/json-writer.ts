/**
 * Writes JSON piece by piece, so that a large answer is never in memory as a whole. Knows nothing
 * of what it renders.
 */

/** A list whose items are made while it is written. */
export class LazyList {
  readonly items: () => Iterable<unknown>;

  constructor(items: () => Iterable<unknown>) {
    this.items = items;
  }
}

/** A value that is JSON already. */
export class RawJson {
  readonly json: string;

  constructor(json: string) {
    this.json = json;
  }
}

/** Rendering one takes some milliseconds, even of many small objects. */
export const PIECE_LENGTH = 8 * 1024;

/**
 * The text of `JSON.stringify` in pieces of about one size. Any object or list may hold lazy lists
 * and raw JSON.
 */
export function* jsonPieces(value: unknown): Generator<string> {
  let piece = "";
  for (const part of parts(value)) {
    piece += part;
    if (piece.length < PIECE_LENGTH) continue;
    yield piece;
    piece = "";
  }
  if (piece !== "") yield piece;
}

/** The same text as one string. */
export function toJson(value: unknown): string {
  return [...jsonPieces(value)].join("");
}

/** An object's JSON without its closing brace, to append members to. */
export function openJson(object: object): string {
  return JSON.stringify(object).slice(0, -1);
}

function* parts(value: unknown): Generator<string> {
  if (value instanceof RawJson) yield value.json;
  else if (value instanceof LazyList) yield* listParts(value.items(), (item) => [JSON.stringify(item) ?? "null"]);
  else if (typeof value !== "object" || value === null) yield JSON.stringify(value) ?? "null";
  else if (!isMadeOfObjects(value)) yield JSON.stringify(value);
  else if (Array.isArray(value)) yield* listParts(value, parts);
  else {
    let separator = "{";
    for (const [key, member] of Object.entries(value)) {
      if (member === undefined) continue;
      yield `${separator}${JSON.stringify(key)}:`;
      yield* parts(member);
      separator = ",";
    }
    yield separator === "{" ? "{}" : "}";
  }
}

function* listParts(items: Iterable<unknown>, partsOf: (item: unknown) => Iterable<string>): Generator<string> {
  yield "[";
  let isFirst = true;
  for (const item of items) {
    if (!isFirst) yield ",";
    isFirst = false;
    yield* partsOf(item);
  }
  yield "]";
}

/** Whether a lazy list may be inside. Token ids, of which there are many, are written at once. */
function isMadeOfObjects(value: object): boolean {
  return !Array.isArray(value) || typeof value[0] === "object";
}
