/** Where tokens begin in a text, counted in characters (code points). */

/** Of one text, while its tokens come. */
export class TextOffsets {
  #numCharacters = 0;
  #numIncomplete = 0;

  /** Characters that begin before the next token. */
  get next(): number {
    return this.#numCharacters + this.#numIncomplete;
  }

  /** @param text that the token completes. A character that it leaves open (`isOpen`) has begun. */
  add(text: string, { isOpen }: { readonly isOpen: boolean }): void {
    this.#numCharacters += countCharacters(text);
    this.#numIncomplete = isOpen ? 1 : 0;
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
