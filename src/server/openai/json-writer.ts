/** JSON made piece by piece, so that a large answer is never in memory as a whole. Knows nothing of what it renders. */

/** A list that is made while it is written, and is never there as a whole. */
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

const PIECE_LENGTH = 32 * 1024;

/** The same text as `JSON.stringify`, in pieces of about one size, with lazy lists and raw JSON in any object or list. */
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

/** The same text in one. */
export function toJson(value: unknown): string {
  return [...jsonPieces(value)].join("");
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

/** Whether there may be a lazy list inside: token ids, of which there are many, are written at once. */
function isMadeOfObjects(value: object): boolean {
  return !Array.isArray(value) || typeof value[0] === "object";
}
