/** Hashes of text, kept instead of the text itself. Pure. */
import { createHash } from "node:crypto";

export interface TextMark {
  readonly textLength: number;
  readonly textHash: string;
}

/** Length and hash of a conversation's text. */
export function textMark(text: string): TextMark {
  return { textLength: text.length, textHash: hashOf(text) };
}

/** 128 bits: nobody can make two texts that pass for one another. */
export function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("base64url").slice(0, 22);
}
