/**
 * Items of an input that are named by their ids: `item_reference` stands for an item of a stored
 * response, of its output or its input. Vercel's SDK repeats a conversation in this way.
 */
import { DenseMambaError } from "../../errors.ts";
import { isRecord, show } from "../openai/validate.ts";
import { MAX_INPUT_ITEMS } from "./request.ts";

/** A response's items, as clients send them back. */
export type FindItems = (responseId: string) => Promise<readonly object[]>;

interface Reference {
  readonly type: "item_reference";
  readonly id?: unknown;
}

export function hasReferences({ input }: Readonly<Record<string, unknown>>): boolean {
  return Array.isArray(input) && input.some(isReference);
}

/**
 * The body with its references replaced by what they stand for.
 * @param maxLength of all that they stand for: a short body may name a long item often
 * @throws `item_not_found`, `invalid_value`
 */
export async function withItems(body: unknown, findItems: FindItems, maxLength: number): Promise<unknown> {
  // More items are refused when the body is parsed.
  if (!isRecord(body) || !hasReferences(body) || (body.input as unknown[]).length > MAX_INPUT_ITEMS) return body;
  const input = body.input as unknown[];
  const places = placesOf(input);
  const items = new Map<string, unknown>();
  let length = 0;
  for (const responseId of new Set([...places.keys()].map(responseOf))) {
    for (const item of await findItems(responseId).catch(nothing)) {
      const { id } = item as { id?: unknown };
      const numPlaces = typeof id === "string" ? (places.get(id)?.length ?? 0) : 0;
      if (numPlaces === 0) continue;
      length += numPlaces * lengthOf(item);
      if (length > maxLength) {
        const message = `input refers to items that have more than ${maxLength} characters together`;
        throw new DenseMambaError("invalid_value", message, { param: "input" });
      }
      items.set(id as string, item);
    }
  }
  const missing = [...places].find(([id]) => !items.has(id));
  if (missing !== undefined) {
    const [id, [place]] = missing;
    const message = `there is no item ${show(id)} here; items of responses with store: false are not stored`;
    throw new DenseMambaError("item_not_found", message, { param: `input[${place}].id` });
  }
  return { ...body, input: input.map((item) => (isReference(item) ? items.get(item.id as string) : item)) };
}

/** Item id → where it is named. @throws `invalid_value` */
function placesOf(input: readonly unknown[]): ReadonlyMap<string, number[]> {
  const places = new Map<string, number[]>();
  for (const [index, item] of input.entries()) {
    if (!isReference(item)) continue;
    const param = `input[${index}].id`;
    if (typeof item.id !== "string") {
      throw new DenseMambaError("invalid_value", `${param} must be a string; got ${show(item.id)}`, { param });
    }
    places.set(item.id, [...(places.get(item.id) ?? []), index]);
  }
  return places;
}

/** As JSON, without log-probabilities, which nobody reads again. */
function lengthOf(item: object): number {
  return JSON.stringify(item, (key, value) => (key === "logprobs" ? undefined : value)).length;
}

function isReference(item: unknown): item is Reference {
  return isRecord(item) && item.type === "item_reference";
}

/** Every item's id follows from that of its response: `msg_1`, `rs_1`, `msg_1_in0` → `resp_1`. */
function responseOf(itemId: string): string {
  return itemId.replace(/^[a-z]+_([^_]*).*$/, "resp_$1");
}

function nothing(error: unknown): readonly object[] {
  if (error instanceof DenseMambaError && error.code === "response_not_found") return [];
  throw error;
}
