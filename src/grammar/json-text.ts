/**
 * JSON as text: what strings, objects and any values look like. White space is fixed (one space
 * after a colon and a comma), so that an answer cannot consist of white space without end, and its
 * fixed parts are known before they are sampled.
 */
import {
  type CharacterSet,
  characters,
  choice,
  complement,
  type Expression,
  type Grammar,
  intersect,
  literal,
  optional,
  repeat,
  sequence,
  setOf,
} from "./expression.ts";
import { ANY_NUMBER } from "./json-numbers.ts";
import type { CharacterForms } from "./regular-expression.ts";

/** Between elements, and between a name and its value. */
export const COMMA = literal(", ");
export const COLON = literal(": ");
const QUOTE = literal('"');

/** What strings have as it is: all but quotes, backslashes and control characters. */
const RAW: CharacterSet = setOf([
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0x10ffff],
]);
const BEYOND_ASCII: CharacterSet = setOf([[0x80, 0x10ffff]]);
/** Code point → the letter after the backslash. */
const SHORT_ESCAPES = new Map([
  [0x08, "b"],
  [0x09, "t"],
  [0x0a, "n"],
  [0x0c, "f"],
  [0x0d, "r"],
  [0x22, '"'],
  [0x5c, "\\"],
]);

const HEX = characters(rangesOf("0123456789ABCDEFabcdef"));

/** One code point of a string. Half a pair of surrogates is none, so no escape has one. */
const STRING_CHARACTER: Expression = choice([
  characters(RAW),
  sequence(
    literal("\\"),
    choice([
      characters(rangesOf('/"\\bfnrt')),
      sequence(literal("u"), characters(rangesOf("0123456789ABCEFabcef")), repeat(HEX, 3, 3)),
      sequence(literal("u"), characters(rangesOf("Dd")), characters(rangesOf("01234567")), repeat(HEX, 2, 2)),
    ]),
  ),
]);

function rangesOf(letters: string): CharacterSet {
  return setOf([...letters].map((letter) => [letter.charCodeAt(0), letter.charCodeAt(0)] as const));
}

/** How a pattern's characters are written inside a string. */
export const STRING_FORMS: CharacterForms = {
  character: (codePoint) => literal(JSON.stringify(String.fromCodePoint(codePoint)).slice(1, -1)),
  set: (set) => {
    const has = (codePoint: number) => set.some(([first, last]) => first <= codePoint && codePoint <= last);
    const letters = [...SHORT_ESCAPES].filter(([codePoint]) => has(codePoint)).map(([, letter]) => letter);
    const raw = characters(intersect(set, RAW));
    if (letters.length === 0) return raw;
    return choice([raw, sequence(literal("\\"), characters(rangesOf(letters.join(""))))]);
  },
};

/** How a pattern's characters are written in plain text. */
export const PLAIN_FORMS: CharacterForms = {
  character: (codePoint) => literal(String.fromCodePoint(codePoint)),
  set: (set) => characters(set),
};

export function quoted(content: Expression): Expression {
  return sequence(QUOTE, content, QUOTE);
}

/** @param min in code points, as JSON Schema counts */
export function stringOf(min: number, max: number): Expression {
  return quoted(repeat(STRING_CHARACTER, min, max));
}

/** A value as `JSON.stringify` would write it, but for the white space. */
export function jsonLiteral(value: unknown): Expression {
  return literal(writeJson(value));
}

function writeJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(writeJson).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, member]) => `${JSON.stringify(name)}: ${writeJson(member)}`)
    .join(", ")}}`;
}

/** A name that is none of these. Written without escapes: an escaped name could equal one. */
export function nameExcept(names: readonly string[], grammar: Grammar): Expression {
  const root: NameTrie = { isName: false, next: new Map() };
  for (const name of names) {
    let node = root;
    for (const character of name) {
      const point = character.codePointAt(0)!;
      const next: NameTrie = node.next.get(point) ?? { isName: false, next: new Map() };
      node.next.set(point, next);
      node = next;
    }
    node.isName = true;
  }
  const rest = grammar.add(sequence(repeat(characters(RAW), 0), QUOTE));
  const beyondAscii = grammar.add(sequence(characters(intersect(RAW, BEYOND_ASCII)), rest));
  const restOf = ({ isName, next }: NameTrie): Expression => {
    const others = intersect(RAW, complement(setOf([...next.keys()].map((point) => [point, point] as const))));
    const isPlain = [...next.keys()].every((point) => point < 0x80);
    return choice([
      ...(isName ? [] : [QUOTE]),
      sequence(characters(isPlain ? intersect(others, complement(BEYOND_ASCII)) : others), rest),
      ...(isPlain ? [beyondAscii] : []),
      ...[...next].map(([point, node]) => sequence(literal(String.fromCodePoint(point)), restOf(node))),
    ]);
  };
  return sequence(QUOTE, restOf(root));
}

interface NameTrie {
  isName: boolean;
  readonly next: Map<number, NameTrie>;
}

/** The members of an object of which any names are allowed. */
export function openObject(name: Expression, value: Expression): Expression {
  const member = sequence(name, COLON, value);
  return sequence(literal("{"), optional(sequence(member, repeat(sequence(COMMA, member), 0))), literal("}"));
}

/** Rules for any string, any object and any value. */
export class AnyJson {
  readonly string: Expression;
  readonly object: Expression;
  readonly array: Expression;
  readonly value: Expression;

  constructor(grammar: Grammar) {
    this.string = grammar.add(stringOf(0, Number.POSITIVE_INFINITY));
    const value = grammar.reserve();
    this.value = { type: "rule", name: value };
    this.object = grammar.add(openObject(this.string, this.value));
    const rest = repeat(sequence(COMMA, this.value), 0);
    this.array = grammar.add(sequence(literal("["), optional(sequence(this.value, rest)), literal("]")));
    const words = ["true", "false", "null"].map(literal);
    grammar.define(value, choice([this.string, grammar.add(ANY_NUMBER), this.object, this.array, ...words]));
  }
}
