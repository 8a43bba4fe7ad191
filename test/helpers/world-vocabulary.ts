/**
 * A small vocabulary in the format of RWKV's, as a file: every byte, and the texts that are given.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "./checkpoints.ts";

export const WORLD_FILE = "rwkv_vocab_v20230424.txt";

/** Literals of Python, with the number of their bytes, from id 257 on. */
export const SMALL_LITERALS: readonly (readonly [literal: string, numBytes: number])[] = [
  ["' the'", 4],
  ["'the'", 3],
  ["'there'", 5],
  ["' \\n'", 2],
  ["'\\n\\n'", 2],
  ['"\'s"', 2],
  ["'\\'\"'", 2],
  ["'User'", 4],
  ["'é'", 2],
  ["'\\x85'", 2],
  ["'你好'", 6],
  ["b'\\xe4\\xbd'", 2],
  ["b'\\xbd\\xa0\\xe5'", 3],
  ["'aaaa'", 4],
  ["'aa'", 2],
];

export function byteLines(): string[] {
  return Array.from({ length: 256 }, (_, byte) => {
    const hex = `\\x${byte.toString(16).padStart(2, "0")}`;
    return `${byte + 1} ${byte < 0x80 ? `'${hex}'` : `b'${hex}'`} 1`;
  });
}

export function worldText(literals = SMALL_LITERALS): string {
  const lines = literals.map(([literal, numBytes], i) => `${257 + i} ${literal} ${numBytes}`);
  return `${[...byteLines(), ...lines].join("\n")}\n`;
}

/**
 * In a new folder, which the caller removes, with further files: name → content, objects as JSON.
 */
export function writeWorldVocabulary(text = worldText(), others: Readonly<Record<string, unknown>> = {}): string {
  const folder = temporaryFolder();
  for (const [name, content] of Object.entries({ [WORLD_FILE]: text, ...others })) {
    writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return folder;
}
