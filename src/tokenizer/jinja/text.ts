/** Python's strings: code points rather than UTF-16 units, and their methods. Pure. */
import { TemplateError, unsupported } from "./error.ts";
import { isSpace } from "./space.ts";

const SURROGATE = /[\ud800-\udfff]/;

/** A lone surrogate counts as one. */
export function numCodePoints(text: string): number {
  if (!SURROGATE.test(text)) return text.length;
  let count = 0;
  for (const _ of text) count++;
  return count;
}

export function codePoints(text: string): Iterator<string> {
  return text[Symbol.iterator]();
}

export function codePointAt(text: string, index: number): string | undefined {
  return SURROGATE.test(text) ? Array.from(text).at(index) : text.at(index);
}

/** For slicing by code points: the text itself if that is the same. */
export function sliceable(text: string): string | string[] {
  return SURROGATE.test(text) ? Array.from(text) : text;
}

export function compareText(a: string, b: string): number {
  if (a === b) return 0;
  if (!SURROGATE.test(a) && !SURROGATE.test(b)) return a < b ? -1 : 1;
  const [x, y] = [Array.from(a), Array.from(b)];
  for (let i = 0; i < Math.min(x.length, y.length); i++) {
    if (x[i] !== y[i]) return x[i]!.codePointAt(0)! - y[i]!.codePointAt(0)!;
  }
  return x.length - y.length;
}

/** Characters whose title case differs from their upper case. */
const OWN_TITLE_CASE =
  /[\u00df\u01c4-\u01cc\u01f1-\u01f3\u0587\u10d0-\u10fa\u10fd-\u10ff\u1f80-\u1faf\u1fb2-\u1fb4\u1fb7\u1fbc\u1fc2-\u1fc4\u1fc7\u1fcc\u1ff2-\u1ff4\u1ff7\u1ffc\ufb00-\ufb06\ufb13-\ufb17]/u;

function titleCase(char: string): string {
  if (OWN_TITLE_CASE.test(char)) throw unsupported(`the title case of ${JSON.stringify(char)}`);
  return char.toUpperCase();
}

export function capitalize(text: string): string {
  const [first] = text;
  if (first === undefined) return "";
  // The whole text in lower case: sigma's form depends on what precedes it.
  return titleCase(first) + text.toLowerCase().slice(first.toLowerCase().length);
}

/** Python's str.title(), which is not the filter of that name. */
export function title(text: string): string {
  if (text.includes("Σ")) throw unsupported("the title case of Σ");
  let isInWord = false;
  let result = "";
  for (const char of text) {
    result += isInWord ? char.toLowerCase() : titleCase(char);
    isInWord = /\p{Cased}/u.test(char);
  }
  return result;
}

export function swapCase(text: string): string {
  if (text.includes("Σ")) throw unsupported("swapping the case of Σ");
  let result = "";
  for (const char of text) result += /\p{Lu}/u.test(char) ? char.toLowerCase() : char.toUpperCase();
  return result;
}

export const isLower = (text: string) => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text);
export const isUpper = (text: string) => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text);

/** Python's split(): by runs of white space, or by `separator`. */
export function split(text: string, separator: string | null, limit: number): string[] {
  if (separator === null) return splitAtSpace(text, limit);
  if (separator === "") throw new TemplateError("empty separator");
  const parts = text.split(separator);
  if (limit < 0 || parts.length <= limit + 1) return parts;
  return [...parts.slice(0, limit), parts.slice(limit).join(separator)];
}

function splitAtSpace(text: string, limit: number): string[] {
  const parts: string[] = [];
  let at = 0;
  for (;;) {
    while (at < text.length && isSpace(text[at]!)) at++;
    if (at === text.length) return parts;
    if (limit >= 0 && parts.length >= limit) return [...parts, text.slice(at)];
    const begin = at;
    while (at < text.length && !isSpace(text[at]!)) at++;
    parts.push(text.slice(begin, at));
  }
}

export function splitFromEnd(text: string, separator: string | null, limit: number): string[] {
  if (separator === null) return splitAtSpaceFromEnd(text, limit);
  if (separator === "") throw new TemplateError("empty separator");
  // Searched from the end, which matters for overlapping separators.
  const parts: string[] = [];
  let end = text.length;
  while (limit < 0 || parts.length < limit) {
    const at = end < separator.length ? -1 : text.lastIndexOf(separator, end - separator.length);
    if (at === -1) break;
    parts.push(text.slice(at + separator.length, end));
    end = at;
  }
  return [text.slice(0, end), ...parts.reverse()];
}

function splitAtSpaceFromEnd(text: string, limit: number): string[] {
  const parts: string[] = [];
  let end = text.length;
  for (;;) {
    while (end > 0 && isSpace(text[end - 1]!)) end--;
    if (end === 0) return parts.reverse();
    if (limit >= 0 && parts.length >= limit) return [text.slice(0, end), ...parts.reverse()];
    const last = end;
    while (end > 0 && !isSpace(text[end - 1]!)) end--;
    parts.push(text.slice(end, last));
  }
}

/** Python has more of them than JavaScript. */
const LINE_END = new RegExp(`\\r\\n|[${["\\n\\r\\v\\f", "\\x1c-\\x1e", "\\x85\\u2028\\u2029"].join("")}]`, "g");

export function splitLines(text: string, keepsEnds: boolean): string[] {
  const lines: string[] = [];
  let at = 0;
  for (const { 0: end, index } of text.matchAll(LINE_END)) {
    lines.push(text.slice(at, keepsEnds ? index + end.length : index));
    at = index + end.length;
  }
  return at < text.length ? [...lines, text.slice(at)] : lines;
}

export function countOf(text: string, part: string): number {
  return part === "" ? numCodePoints(text) + 1 : text.split(part).length - 1;
}

export function replaceText(text: string, from: string, to: string, limit: number): string {
  if (limit < 0) return from === "" ? betweenAll(text, to, Number.POSITIVE_INFINITY) : text.split(from).join(to);
  if (from === "") return betweenAll(text, to, limit);
  const parts = text.split(from);
  if (parts.length <= limit + 1) return parts.join(to);
  return [...parts.slice(0, limit), parts.slice(limit).join(from)].join(to);
}

function betweenAll(text: string, inserted: string, limit: number): string {
  let result = "";
  let count = 0;
  for (const char of text) result += count++ < limit ? inserted + char : char;
  return count < limit ? result + inserted : result;
}
