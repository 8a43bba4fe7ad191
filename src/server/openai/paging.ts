/** Lists in pages, as at OpenAI: `limit`, `order`, and `after`, the last id of the page before. */
import * as z from "zod";
import type { Log } from "../deps.ts";
import { invalid, parseBody, show } from "./validate.ts";

export interface PageRequest {
  readonly limit: number;
  readonly order: "asc" | "desc";
  readonly after: string | undefined;
}

interface PageBounds {
  readonly defaultLimit: number;
  readonly maxLimit: number;
  readonly defaultOrder: "asc" | "desc";
}

/** @param query as the client sent it. @throws `invalid_value` */
export function parsePage(query: Readonly<Record<string, string>>, bounds: PageBounds, log: Log): PageRequest {
  const schema = z.object({
    limit: z.int().min(1).max(bounds.maxLimit).optional(),
    order: z.enum(["asc", "desc"]).optional(),
    after: z.string().min(1).max(256).optional(),
  });
  const { limit, ...others } = query;
  const given = { ...others, ...(limit === undefined ? {} : { limit: toNumber(limit) }) };
  const parsed = parseBody(schema, given, log);
  return {
    limit: parsed.limit ?? bounds.defaultLimit,
    order: parsed.order ?? bounds.defaultOrder,
    after: parsed.after,
  };
}

/**
 * @param items in ascending order
 * @throws `invalid_value` if there is no item `after`
 */
export function toPage<T extends { readonly id: string }>(items: readonly T[], { limit, order, after }: PageRequest) {
  const ordered = order === "asc" ? items : items.toReversed();
  const start = after === undefined ? 0 : ordered.findIndex(({ id }) => id === after) + 1;
  if (after !== undefined && start === 0) throw invalid("after", `must be the id of an item here; got ${show(after)}`);
  const data = ordered.slice(start, start + limit);
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: start + data.length < ordered.length,
  };
}

/** The number in a query. Other text is returned as it is, for the error message. */
export function toNumber(text: string): number | string {
  return /^[+-]?\d+(?:\.\d+)?$/.test(text) ? Number(text) : text;
}
