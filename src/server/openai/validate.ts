/**
 * Request bodies: zod's issues become one `DenseMambaError` whose message names the field, the
 * bound and the value given. `null` is the same as absent for every optional field; unknown fields
 * are allowed and logged.
 */
import * as z from "zod";
import { DenseMambaError } from "../../errors.ts";
import type { Log } from "../deps.ts";

type Issue = z.core.$ZodIssue;
type Path = readonly PropertyKey[];

/** Marks a custom issue as `unsupported_value`: well formed, but not implemented here. */
const UNSUPPORTED = { unsupported: true };

/** Field → the values that change nothing, and what to answer to any other. */
export type RefusedFields = Readonly<Record<string, readonly [harmless: readonly unknown[], reason: string]>>;

/**
 * Of request schemas. NOTE: not in the schemas themselves: zod would look for each of some 200
 * fields in every body, which takes ten times as long as the rest.
 */
export const refusals = z.registry<RefusedFields>();

/**
 * Parses a body that JSON.parse has returned.
 * @throws `invalid_value` or `unsupported_value` with the first problem found
 */
export function parseBody<T extends z.ZodObject>(schema: T, body: unknown, log: Log): z.output<T> {
  if (!isRecord(body)) throw new DenseMambaError("invalid_value", `the body must be a JSON object; got ${show(body)}`);
  const given: Record<string, unknown> = Object.create(null);
  const unknown: string[] = [];
  const refused = refusals.get(schema) ?? {};
  for (const key of Object.keys(body)) {
    if (Object.hasOwn(schema.shape, key)) {
      if (body[key] !== null) given[key] = body[key];
    } else if (Object.hasOwn(refused, key)) checkRefused(key, body[key], refused[key]!);
    else unknown.push(key);
  }
  if (unknown.length > 0) log.debug({ fields: unknown.slice(0, 32) }, "unknown request fields are ignored");
  const parsed = schema.safeParse({ ...given });
  if (!parsed.success) throw toError(parsed.error.issues, given);
  return parsed.data;
}

function checkRefused(field: string, value: unknown, [harmless, reason]: RefusedFields[string]): void {
  if (value === null || harmless.some((one) => one === value || (isEmpty(one) && isEmpty(value, one)))) return;
  throw new DenseMambaError("unsupported_value", `${field} is not supported: ${reason}`, { param: field });
}

/** A list or an object without anything in it, of the same kind as `other`. */
function isEmpty(value: unknown, other = value): boolean {
  const isList = Array.isArray(value);
  return (isList || isRecord(value)) && isList === Array.isArray(other) && Object.keys(value).length === 0;
}

/** For rules between fields, which no schema states. */
export function invalid(param: string, message: string): DenseMambaError {
  return new DenseMambaError("invalid_value", `${param} ${message}`, { param });
}

/** Accepts the values for which `isHarmless` holds and refuses all others as not implemented. */
export function unsupportedUnless(isHarmless: (value: unknown) => boolean, what: string) {
  return z
    .unknown()
    .superRefine((value, context) => {
      if (value === undefined || isHarmless(value)) return;
      context.addIssue({ code: "custom", message: `is not supported: ${what}`, params: UNSUPPORTED, input: value });
    })
    .optional();
}

/**
 * Reports a problem at `path` below the current field; the message continues after the field's
 * name.
 */
export function addIssue(context: z.RefinementCtx, message: string, path: readonly (string | number)[] = []): void {
  context.addIssue({ code: "custom", message, path: [...path] });
}

/** Reports a problem from within a transform. */
export function refuse(context: z.RefinementCtx, message: string, path: readonly (string | number)[] = []): never {
  addIssue(context, message, path);
  return z.NEVER;
}

/** For functions that return undefined once a problem is reported. */
export function report(context: z.RefinementCtx, message: string, path: readonly (string | number)[]): undefined {
  addIssue(context, message, path);
}

export function addUnsupported(context: z.RefinementCtx, message: string, path: readonly (string | number)[]): void {
  context.addIssue({ code: "custom", message, path: [...path], params: UNSUPPORTED });
}

/** A value as JSON, short enough for a message. */
export function show(value: unknown): string {
  if (Array.isArray(value) && value.length > 4) return `a list of ${value.length}`;
  const isNumber = typeof value === "bigint" || typeof value === "number";
  const text = isNumber ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length <= 64 ? text : `${text.slice(0, 61)}...`;
}

function toError(issues: readonly Issue[], body: unknown): DenseMambaError {
  const first = issues[0]!;
  // Several checks may fail on one value; the last is the narrowest bound.
  const narrowest = issues.findLast((issue) => issue.code === first.code && samePath(issue.path, first.path)) ?? first;
  const { issue, path } = innermost(narrowest, []);
  const param = formatPath(path);
  const message = `${param} ${describe(issue, valueAt(body, path))}`;
  const unsupported = issue.code === "custom" && issue.params?.unsupported === true;
  return new DenseMambaError(unsupported ? "unsupported_value" : "invalid_value", message, { param });
}

/** Follows a union into the branch whose outer type fits: the client meant that one. */
function innermost(issue: Issue, parent: Path): { issue: Issue; path: Path } {
  const path = [...parent, ...issue.path];
  if (issue.code !== "invalid_union") return { issue, path };
  for (const [first] of issue.errors) {
    const misfit = first === undefined || (first.code === "invalid_type" && first.path.length === 0);
    if (!misfit) return innermost(first, path);
  }
  return { issue, path };
}

function describe(issue: Issue, value: unknown): string {
  const got = value === undefined ? "" : `; got ${show(value)}`;
  switch (issue.code) {
    case "custom":
      return issue.message;
    case "invalid_type":
      return value === undefined ? "is required" : `must be ${typeName(issue.expected)}${got}`;
    case "invalid_union": {
      if (value === undefined) return "is required";
      const names = issue.errors.flatMap(([first]) => (first?.code === "invalid_type" ? typeName(first.expected) : []));
      return `must be ${names.join(" or ")}${got}`;
    }
    case "too_small":
    case "too_big":
      return describeBound(issue, value);
    case "invalid_value":
      return `must be one of ${issue.values.map((known) => show(known)).join(", ")}${got}`;
    default:
      return `is invalid: ${issue.message}${got}`;
  }
}

function describeBound(issue: Extract<Issue, { code: "too_small" | "too_big" }>, value: unknown): string {
  const low = issue.code === "too_small";
  const bound = low ? issue.minimum : issue.maximum;
  if (issue.origin === "array" || issue.origin === "string") {
    const unit = (issue.origin === "array" ? "item" : "character") + (bound === 1 ? "" : "s");
    const size = Array.isArray(value) || typeof value === "string" ? value.length : "none";
    return `must have at ${low ? "least" : "most"} ${bound} ${unit}; got ${size}`;
  }
  const relation = issue.inclusive === false ? (low ? "greater than" : "less than") : low ? "at least" : "at most";
  return `must be ${relation} ${bound}; got ${show(value)}`;
}

function typeName(expected: string): string {
  switch (expected) {
    case "int":
      return "an integer";
    case "array":
      return "a list";
    case "object":
    case "record":
      return "an object";
    default:
      return `a ${expected}`;
  }
}

/** `messages[2].content` */
export function formatPath(path: Path): string {
  let text = "";
  for (const key of path) text += typeof key === "number" ? `[${key}]` : text === "" ? String(key) : `.${String(key)}`;
  return text;
}

function valueAt(body: unknown, path: Path): unknown {
  let value = body;
  for (const key of path) value = value === null || value === undefined ? undefined : Reflect.get(Object(value), key);
  return value;
}

function samePath(a: Path, b: Path): boolean {
  return a.length === b.length && a.every((key, index) => key === b[index]);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
