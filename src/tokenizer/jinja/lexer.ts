/**
 * Template source → tokens, as jinja2 reads it with trim_blocks and lstrip_blocks: handles white
 * space around tags, comments and raw blocks.
 */
import { TemplateError } from "./error.ts";
import { isSpace, rstrip, SPACE } from "./space.ts";

export type TokenType =
  | ("data" | "variable_begin" | "variable_end" | "block_begin" | "block_end" | "eof")
  | ("name" | "string" | "integer" | "float" | "operator");

export interface Token {
  readonly type: TokenType;
  /** The contents of a string; other tokens as written. */
  readonly value: string;
  readonly line: number;
}

const FLOAT = /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy;
const INTEGER = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy;
const NAME = /[\p{L}\p{M}\p{N}\p{Pc}]+/uy;
const OPERATOR = /\/\/|\*\*|[=!<>]=|[-+/*%~[\](){}<>=.:|,;]/y;
const RAW_BEGIN = new RegExp(`\\{%([-+]?)[${SPACE}]*raw[${SPACE}]*(-?)%\\}`, "y");
const RAW_END = new RegExp(`\\{%([-+]?)[${SPACE}]*endraw[${SPACE}]*([-+]?)%\\}`, "g");
const TAG = /\{[{%#]/g;
const CLOSING: Readonly<Record<string, string>> = { "{": "}", "(": ")", "[": "]" };

/** @throws TemplateError */
export function tokenize(template: string): Token[] {
  return new Lexer(template).run();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  #lineAt = 0;
  /** Whether the last thing read ended a line. */
  #startsLine = true;

  constructor(template: string) {
    this.#source = template.replace(/\r\n?/g, "\n").replace(/\n$/, "");
  }

  run(): Token[] {
    const source = this.#source;
    while (this.#at < source.length) {
      TAG.lastIndex = this.#at;
      const tag = TAG.exec(source);
      if (tag === null) {
        this.#data(source.slice(this.#at));
        break;
      }
      const raw = match(RAW_BEGIN, source, tag.index);
      if (raw !== undefined) this.#readRaw(tag.index, raw);
      else if (tag[0] === "{#") this.#readComment(tag.index);
      else this.#readTag(tag.index, tag[0] === "{%");
    }
    this.#push("eof", "", source.length);
    return this.#tokens;
  }

  /** The text before a tag. @returns where the tag's sign ends */
  #readTextBefore(tagAt: number, isVariable: boolean): number {
    const text = this.#source.slice(this.#at, tagAt);
    const sign = this.#source[tagAt + 2];
    this.#data(this.#stripped(text, sign, isVariable));
    return tagAt + (sign === "-" || sign === "+" ? 3 : 2);
  }

  #stripped(text: string, sign: string | undefined, isVariable: boolean): string {
    if (sign === "-") return rstrip(text);
    if (sign === "+" || isVariable) return text;
    const lineAt = text.lastIndexOf("\n") + 1;
    return (lineAt > 0 || this.#startsLine) && rstrip(text.slice(lineAt)) === "" ? text.slice(0, lineAt) : text;
  }

  #data(text: string): void {
    if (text !== "") this.#push("data", text, this.#at);
  }

  #readComment(tagAt: number): void {
    const begin = this.#readTextBefore(tagAt, false);
    const end = this.#source.indexOf("#}", begin);
    if (end === -1) throw this.#error("missing end of comment tag", tagAt);
    const sign = end > begin ? this.#source[end - 1] : undefined;
    this.#close(end + 2, sign, true);
  }

  #readRaw(tagAt: number, begin: RegExpExecArray): void {
    this.#data(this.#stripped(this.#source.slice(this.#at, tagAt), begin[1] || undefined, false));
    this.#close(tagAt + begin[0].length, begin[2], false);
    RAW_END.lastIndex = this.#at;
    const end = RAW_END.exec(this.#source);
    if (end === null) throw this.#error("missing end of raw directive", tagAt);
    this.#data(this.#stripped(this.#source.slice(this.#at, end.index), end[1] || undefined, false));
    this.#close(end.index + end[0].length, end[2], true);
  }

  /** After a tag that ends at `end` with this sign. */
  #close(end: number, sign: string | undefined, trimsNewline: boolean): void {
    const source = this.#source;
    this.#at = end;
    if (sign === "-") while (this.#at < source.length && isSpace(source[this.#at]!)) this.#at++;
    else if (sign !== "+" && trimsNewline && source[end] === "\n") this.#at++;
    this.#startsLine = source[this.#at - 1] === "\n";
  }

  #readTag(tagAt: number, isBlock: boolean): void {
    const begin = this.#readTextBefore(tagAt, !isBlock);
    this.#push(isBlock ? "block_begin" : "variable_begin", "", tagAt);
    this.#at = begin;
    const open: string[] = [];
    const end = isBlock ? "%}" : "}}";
    for (;;) {
      while (this.#at < this.#source.length && isSpace(this.#source[this.#at]!)) this.#at++;
      if (this.#at >= this.#source.length) throw this.#error(`missing end of tag: expected ${end}`, tagAt);
      if (open.length === 0 && this.#endsTag(end, isBlock)) return;
      this.#readToken(open);
    }
  }

  #endsTag(end: string, isBlock: boolean): boolean {
    const at = this.#at;
    const first = this.#source[at]!;
    const sign = first === "-" || (first === "+" && isBlock) ? first : undefined;
    const endAt = sign === undefined ? at : at + 1;
    if (!this.#source.startsWith(end, endAt)) return false;
    this.#push(isBlock ? "block_end" : "variable_end", "", at);
    this.#close(endAt + 2, sign, isBlock);
    return true;
  }

  #readToken(open: string[]): void {
    const source = this.#source;
    const at = this.#at;
    const first = source[at]!;
    if (first === "'" || first === '"') {
      this.#readString(first);
      return;
    }
    for (const [type, pattern] of [
      ["float", FLOAT],
      ["integer", INTEGER],
      ["name", NAME],
      ["operator", OPERATOR],
    ] as const) {
      const found = match(pattern, source, at)?.[0];
      if (found === undefined) continue;
      if (type === "name" && !/^[A-Za-z_][A-Za-z0-9_]*$/.test(found)) {
        throw this.#error(`the name ${JSON.stringify(found)} is not supported: names are of ASCII letters here`, at);
      }
      if (type === "operator") this.#balance(open, found, at);
      this.#push(type, type === "integer" || type === "float" ? found.replaceAll("_", "") : found, at);
      this.#at = at + found.length;
      return;
    }
    throw this.#error(`unexpected character ${JSON.stringify(String.fromCodePoint(source.codePointAt(at)!))}`, at);
  }

  #balance(open: string[], operator: string, at: number): void {
    if (CLOSING[operator] !== undefined) open.push(CLOSING[operator]);
    else if (/^[\])}]$/.test(operator) && open.pop() !== operator) throw this.#error(`unexpected '${operator}'`, at);
  }

  #readString(quote: string): void {
    const source = this.#source;
    const at = this.#at;
    let end = at + 1;
    while (end < source.length && source[end] !== quote) end += source[end] === "\\" ? 2 : 1;
    if (end >= source.length) throw this.#error("a string has no end", at);
    const written = source.slice(at + 1, end);
    this.#push("string", written.includes("\\") ? this.#unescape(written, at) : written, at);
    this.#at = end + 1;
  }

  /** As Python's `unicode-escape`: an unknown escape keeps its backslash. */
  #unescape(written: string, at: number): string {
    return written.replace(
      /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|([\s\S]))/gu,
      (whole, x?: string, u?: string, big?: string, octal?: string, other?: string) => {
        const hex = x ?? u ?? big;
        if (other === undefined) {
          const code = hex === undefined ? Number.parseInt(octal!, 8) : Number.parseInt(hex, 16);
          if (code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)) return String.fromCodePoint(code);
          throw this.#error(`the escape ${whole} is not supported`, at);
        }
        if (/[xuUN]/.test(other) || other > "\x7f") throw this.#error(`the escape ${whole} is not supported`, at);
        return ESCAPES[other] ?? whole;
      },
    );
  }

  #push(type: TokenType, value: string, at: number): void {
    this.#tokens.push({ type, value, line: this.#lineOf(at) });
  }

  /** Positions come in rising order, except for errors. */
  #lineOf(at: number): number {
    for (; this.#lineAt < at; this.#lineAt++) if (this.#source[this.#lineAt] === "\n") this.#line++;
    return this.#line;
  }

  #error(message: string, at: number): TemplateError {
    return new TemplateError(message, this.#lineOf(at));
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  ...{ n: "\n", t: "\t", r: "\r", b: "\b", f: "\f", v: "\v", a: "\x07" },
  ...{ "\\": "\\", "'": "'", '"': '"', "\n": "" },
};

function match(pattern: RegExp, source: string, at: number): RegExpExecArray | undefined {
  pattern.lastIndex = at;
  return pattern.exec(source) ?? undefined;
}
