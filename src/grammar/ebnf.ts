/**
 * Grammars in EBNF, as llama.cpp (GBNF) and xgrammar read them: rules `name ::= …`, strings,
 * classes of characters, groups, `|`, and the repetitions `*`, `+`, `?`, `{n}`, `{n,}` and
 * `{n,m}`. The rule `root` is the whole text.
 */
import { DenseMambaError } from "../errors.ts";
import {
  type CharacterSet,
  characters,
  choice,
  complement,
  EMPTY,
  type Expression,
  type Grammar,
  literal,
  MAX_COUNT,
  repeat,
  rule,
  sequence,
  setOf,
} from "./expression.ts";

const ROOT = "root";
/** What begins a token; white space and comments before it are left out. */
const NAME = /[A-Za-z_][A-Za-z0-9_.-]*/y;
const DEFINES = /\s*::=/y;
const BLANK = /(?:\s|#[^\n]*)*/y;
const COUNT = /\{\s*(\d{1,9})\s*(?:(,)\s*(\d{1,9})?\s*)?\}/y;
const ESCAPE = /\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([^xuU]))/y;
const NAMED_ESCAPES: Readonly<Record<string, number>> = {
  n: 0x0a,
  r: 0x0d,
  t: 0x09,
  b: 0x08,
  f: 0x0c,
  v: 0x0b,
  "0": 0,
};

/** Adds the rules to `grammar`. @returns the text's; @throws `invalid_value` */
export function parseEbnf(source: string, grammar: Grammar): Expression {
  return new EbnfParser(source, grammar).parse();
}

class EbnfParser {
  readonly #source: string;
  readonly #grammar: Grammar;
  #at = 0;
  /** The client's names → ours. */
  readonly #names = new Map<string, string>();
  readonly #defined = new Set<string>();

  constructor(source: string, grammar: Grammar) {
    this.#source = source;
    this.#grammar = grammar;
  }

  parse(): Expression {
    this.#skipBlank();
    while (this.#at < this.#source.length) {
      const name = this.#match(NAME)?.[0];
      if (name === undefined || !this.#match(DEFINES)) throw this.#fail("a rule begins with its name and ::=");
      if (this.#defined.has(name)) throw this.#fail(`the rule ${name} is there twice`);
      this.#defined.add(name);
      this.#grammar.define(this.#nameOf(name), this.#alternatives());
    }
    const missing = [ROOT, ...this.#names.keys()].find((name) => !this.#defined.has(name));
    if (missing !== undefined) throw this.#fail(`there is no rule ${missing}`);
    return rule(this.#nameOf(ROOT));
  }

  #nameOf(name: string): string {
    const known = this.#names.get(name) ?? this.#grammar.reserve();
    this.#names.set(name, known);
    return known;
  }

  #alternatives(): Expression {
    const options = [this.#sequence()];
    while (this.#take("|")) options.push(this.#sequence());
    return choice(options);
  }

  #sequence(): Expression {
    const parts: Expression[] = [];
    for (;;) {
      this.#skipBlank();
      const element = this.#element();
      if (element === undefined) return parts.length === 0 ? EMPTY : sequence(...parts);
      parts.push(this.#repeated(element));
    }
  }

  #element(): Expression | undefined {
    const character = this.#source[this.#at];
    switch (character) {
      case '"':
        return this.#string();
      case "[":
        return this.#class();
      case ".":
        this.#at++;
        return characters(setOf([[0, 0x10ffff]]));
      case "(": {
        this.#at++;
        this.#skipBlank();
        if (this.#source[this.#at] === "=") throw this.#fail("lookahead is not supported");
        const inner = this.#alternatives();
        if (!this.#take(")")) throw this.#fail("a group ends with )");
        return inner;
      }
      default:
        return this.#reference();
    }
  }

  /** Undefined where the next rule begins, or the sequence ends. */
  #reference(): Expression | undefined {
    const start = this.#at;
    const name = this.#match(NAME)?.[0];
    if (name === undefined) return undefined;
    const ahead = this.#at;
    if (this.#match(DEFINES)) {
      this.#at = start;
      return undefined;
    }
    this.#at = ahead;
    return rule(this.#nameOf(name));
  }

  #repeated(item: Expression): Expression {
    this.#skipBlank();
    if (this.#take("*")) return repeat(item, 0);
    if (this.#take("+")) return repeat(item, 1);
    if (this.#take("?")) return repeat(item, 0, 1);
    if (this.#source[this.#at] !== "{") return item;
    const count = this.#match(COUNT);
    if (count === undefined) throw this.#fail("a repetition is {n}, {n,} or {n,m}");
    const min = Number(count[1]);
    const max = count[2] === undefined ? min : count[3] === undefined ? Number.POSITIVE_INFINITY : Number(count[3]);
    const largest = max === Number.POSITIVE_INFINITY ? min : max;
    if (min > max || largest > MAX_COUNT) throw this.#fail(`counts are ascending, at most ${MAX_COUNT}`);
    return repeat(item, min, max);
  }

  #string(): Expression {
    let text = "";
    this.#at++;
    for (;;) {
      const character = this.#source[this.#at];
      if (character === undefined || character === "\n") throw this.#fail("a string ends with a quote on its line");
      if (character === '"') {
        this.#at++;
        return literal(text);
      }
      text += String.fromCodePoint(this.#codePoint());
    }
  }

  #class(): Expression {
    this.#at++;
    const isNegated = this.#source[this.#at] === "^";
    if (isNegated) this.#at++;
    const ranges: [number, number][] = [];
    while (this.#source[this.#at] !== "]") {
      const first = this.#codePoint();
      const isRange = this.#source[this.#at] === "-" && this.#source[this.#at + 1] !== "]";
      if (isRange) this.#at++;
      const last = isRange ? this.#codePoint() : first;
      if (first > last) throw this.#fail("a range of characters goes up");
      ranges.push([first, last]);
    }
    this.#at++;
    const set: CharacterSet = setOf(ranges);
    return characters(isNegated ? setOf(complement(set)) : set);
  }

  #codePoint(): number {
    if (this.#source[this.#at] === "\\") {
      const match = this.#match(ESCAPE);
      if (match === undefined) throw this.#fail("this is no escape");
      const [, x, u, U, letter] = match;
      const hex = x ?? u ?? U;
      if (hex === undefined) return NAMED_ESCAPES[letter!] ?? letter!.codePointAt(0)!;
      const point = Number.parseInt(hex, 16);
      const isCharacter = point <= 0x10ffff && !(point >= 0xd800 && point <= 0xdfff);
      if (!isCharacter) throw this.#fail("this is no character");
      return point;
    }
    const point = this.#source.codePointAt(this.#at);
    if (point === undefined) throw this.#fail("it ends within a class of characters");
    this.#at += point > 0xffff ? 2 : 1;
    return point;
  }

  #take(symbol: string): boolean {
    this.#skipBlank();
    const isThere = this.#source.startsWith(symbol, this.#at);
    if (isThere) this.#at += symbol.length;
    return isThere;
  }

  #skipBlank(): void {
    this.#match(BLANK);
  }

  #match(pattern: RegExp): RegExpExecArray | undefined {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#source);
    if (match === null) return undefined;
    this.#at = pattern.lastIndex;
    return match;
  }

  #fail(why: string): DenseMambaError {
    const line = this.#source.slice(0, this.#at).split("\n").length;
    return new DenseMambaError("invalid_value", `is no grammar in EBNF: line ${line}: ${why}`);
  }
}
