/**
 * RWKV's World vocabulary: a text file with a token on each line, `<id> <literal of Python> <number
 * of bytes>`, such as `33155 'Hello' 5` or `128 b'\x7f' 1`. The literals are read here; nothing is
 * evaluated. Pure.
 */
import { DenseMambaError } from "../errors.ts";
import { MAX_TOKEN_ID } from "./files.ts";

export interface WorldToken {
  readonly id: number;
  readonly bytes: Buffer;
  /** The literal, as the file has it. */
  readonly literal: string;
}

const MAX_TOKEN_BYTES = 4096;
const LINE = /^(\d{1,9}) (b?'.*'|b?".*") (\d{1,9})$/s;
const ESCAPE = /\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)|[^\\]+|\\$/gs;
const SIMPLE_ESCAPES: Readonly<Record<string, string>> = {
  ...{ "\\": "\\", "'": "'", '"': '"', a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" },
};

/**
 * @param path only for messages
 * @throws `invalid_checkpoint` naming the line: of one that is malformed or cut off, an id or a
 * text that was there before, or a byte that no token spells, without which some texts have no ids.
 */
export function parseWorldVocabulary(text: string, path: string): WorldToken[] {
  const tokens: WorldToken[] = [];
  const lineOfId = new Map<number, number>();
  const lineOfText = new Map<string, number>();
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  for (const [i, line] of lines.entries()) {
    const fail = (what: string) => invalid(path, `line ${i + 1} ${what}`);
    const token = parseLine(line.replace(/\r$/, ""), fail);
    const key = token.bytes.toString("latin1");
    const [sameId, sameText] = [lineOfId.get(token.id), lineOfText.get(key)];
    if (sameId !== undefined) throw fail(`has id ${token.id}, which line ${sameId} has already`);
    if (sameText !== undefined)
      throw fail(`has the text ${shortened(token.literal)}, which line ${sameText} has already`);
    lineOfId.set(token.id, i + 1);
    lineOfText.set(key, i + 1);
    tokens.push(token);
  }
  for (let byte = 0; byte < 256; byte++) {
    if (lineOfText.has(String.fromCharCode(byte))) continue;
    const shown = `0x${byte.toString(16).padStart(2, "0")}`;
    throw invalid(path, `no token is the byte ${shown} alone: ${tokens.length} tokens, the file may be cut off`);
  }
  return tokens;
}

function parseLine(line: string, fail: (what: string) => Error): WorldToken {
  const [, id, literal, length] = LINE.exec(line) ?? [];
  if (id === undefined || literal === undefined) {
    throw fail(
      `is ${shortened(JSON.stringify(line))}, not an id, a literal and a number of bytes; the file may be cut off`,
    );
  }
  if (Number(id) > MAX_TOKEN_ID) throw fail(`has id ${id}; at most ${MAX_TOKEN_ID} is possible`);
  const bytes = readLiteral(literal, fail);
  if (bytes.length !== Number(length)) {
    throw fail(`says that ${shortened(literal)} has ${length} bytes; it has ${bytes.length}`);
  }
  if (bytes.length === 0 || bytes.length > MAX_TOKEN_BYTES) {
    throw fail(`has a token of ${bytes.length} bytes, not of 1 to ${MAX_TOKEN_BYTES}`);
  }
  return { id: Number(id), bytes, literal };
}

/** A string is UTF-8, each character of a bytes literal is a byte. */
function readLiteral(literal: string, fail: (what: string) => Error): Buffer {
  const isBytes = literal.startsWith("b");
  const quote = literal[isBytes ? 1 : 0]!;
  const content = literal.slice(isBytes ? 2 : 1, -1);
  if (!isBytes && !content.includes("\\") && !content.includes(quote)) return Buffer.from(content, "utf8");
  let text = "";
  for (const [part, sequence] of content.matchAll(ESCAPE)) {
    if (sequence === undefined) {
      if (part === "\\" || part.includes(quote)) throw fail(`has a malformed literal: ${shortened(literal)}`);
      text += part;
      continue;
    }
    const known = SIMPLE_ESCAPES[sequence];
    const digits = /^[xuU](.+)$/.exec(sequence)?.[1];
    const isUnicode = /^[uU]/.test(sequence) && sequence.length > 1;
    if (known === undefined && digits === undefined && !/^[0-7]/.test(sequence)) {
      throw fail(`has an escape sequence that is not known: ${shortened(literal)}`);
    }
    const code = digits === undefined ? Number.parseInt(sequence, 8) : Number.parseInt(digits, 16);
    if (known === undefined && ((isBytes && isUnicode) || code > 0x10ffff)) {
      throw fail(`has an escape sequence that is not known: ${shortened(literal)}`);
    }
    text += known ?? String.fromCodePoint(code);
  }
  if (!isBytes) return Buffer.from(text, "utf8");
  if (/[^\0-\xff]/.test(text)) throw fail(`has a character in a literal of bytes: ${shortened(literal)}`);
  return Buffer.from(text, "latin1");
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function invalid(path: string, why: string): DenseMambaError {
  return new DenseMambaError("invalid_checkpoint", `${path}: ${why}`);
}
