/**
 * JSON objects of a checkpoint, read so that nothing in them is dropped silently: `JSON.parse`
 * keeps the last of two equal keys, and a tensor that is listed twice would lose one of its places.
 */
import { invalidCheckpoint } from "./weights.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * @param what names the text in messages
 * @throws `invalid_checkpoint` if the text is no JSON object or an object in it has a key twice.
 */
export function parseJsonObject(text: string, what: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw invalidCheckpoint(`${what} is not JSON: ${cause instanceof Error ? cause.message : cause}`, cause);
  }
  if (!isJsonObject(value)) throw invalidCheckpoint(`${what} is not a JSON object`);
  const key = repeatedKey(text);
  if (key !== undefined) throw invalidCheckpoint(`${what} lists ${key} twice`);
  return value;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Of a text that is JSON: the first key that its object has already. A string is a key where a
 * colon follows it.
 */
function repeatedKey(text: string): string | undefined {
  const objects: Set<string>[] = [];
  for (const [token, key] of text.matchAll(/("(?:[^"\\]|\\.)*")\s*:|"(?:[^"\\]|\\.)*"|[{}]/g)) {
    if (token === "{") objects.push(new Set());
    else if (token === "}") objects.pop();
    else if (key !== undefined) {
      const name = JSON.parse(key) as string;
      const keys = objects.at(-1)!;
      if (keys.has(name)) return name;
      keys.add(name);
    }
  }
  return undefined;
}
