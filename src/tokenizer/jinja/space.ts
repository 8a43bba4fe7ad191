/**
 * White space of Python's str: unlike JavaScript's it includes U+0085 and U+001C to U+001F, but not
 * U+FEFF.
 */

/** For use in a character class. */
export const SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";

const ONE = new RegExp(`[${SPACE}]`);

export function isSpace(char: string): boolean {
  return ONE.test(char);
}

/**
 * Loops and not patterns: a pattern for the end of a text takes quadratic time on runs of spaces.
 */
export function lstrip(text: string, isStripped: (char: string) => boolean = isSpace): string {
  let start = 0;
  while (start < text.length && isStripped(text[start]!)) start++;
  return text.slice(start);
}

export function rstrip(text: string, isStripped: (char: string) => boolean = isSpace): string {
  let end = text.length;
  while (end > 0 && isStripped(text[end - 1]!)) end--;
  return text.slice(0, end);
}

export function strip(text: string): string {
  return rstrip(lstrip(text));
}
