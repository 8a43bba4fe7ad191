/** Where tokens begin in the text that shows them: counts characters (code points). Pure. */
import type { TextStream, Tokenizer } from "../tokenizer/tokenizer.ts";

/** Of one text, while its tokens come. */
export class TextOffsets {
  #numCharacters = 0;
  #numOpen = 0;

  /** Characters that begin before the next token. */
  get next(): number {
    return this.#numCharacters + this.#numOpen;
  }

  /** @param text what the token has completed. A character that it leaves open has begun, and is shown in the end. */
  add(text: string, { isOpen }: { readonly isOpen: boolean }): void {
    this.#numCharacters += countCharacters(text);
    this.#numOpen = isOpen ? 1 : 0;
  }
}

/**
 * Of a prompt that is shown as the client wrote it. Its special tokens are shown where the client wrote them, and not where
 * the tokenizer put them.
 * @param stream of text without special tokens
 */
export function* offsetsInWritten(
  text: string,
  ids: readonly number[],
  { tokenizer, stream }: { readonly tokenizer: Tokenizer; readonly stream: TextStream },
): Generator<number> {
  const offsets = new TextOffsets();
  const length = countCharacters(text);
  let at = 0;
  for (const id of ids) {
    yield Math.min(offsets.next, length);
    const special = tokenizer.specialIds.has(id) ? tokenizer.tokenText(id) : undefined;
    let shown = "";
    if (special === undefined) shown = stream.push(id);
    else if (text.startsWith(special, at)) shown = special;
    at += shown.length;
    offsets.add(shown, stream);
  }
}

export function countCharacters(text: string): number {
  let count = text.length;
  for (let i = 1; i < text.length; i++) if (isLow(text, i) && isHigh(text, i - 1)) count--;
  return count;
}

function isHigh(text: string, at: number): boolean {
  return (text.charCodeAt(at) & 0xfc00) === 0xd800;
}

function isLow(text: string, at: number): boolean {
  return (text.charCodeAt(at) & 0xfc00) === 0xdc00;
}
