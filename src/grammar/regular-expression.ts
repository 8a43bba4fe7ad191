/**
 * Regular expressions of ECMAScript → expressions of a grammar. What a grammar cannot say
 * (lookaround, references back, word boundaries) is refused.
 */
import { type AST, RegExpParser } from "@eslint-community/regexpp";
import { DenseMambaError } from "../errors.ts";
import {
  type CharacterSet,
  choice,
  complement,
  EMPTY,
  type Expression,
  MAX_COUNT,
  repeat,
  sequence,
  setOf,
} from "./expression.ts";

/** How a character, or one of a set, is written in the text around. */
export interface CharacterForms {
  readonly character: (codePoint: number) => Expression;
  readonly set: (set: CharacterSet) => Expression;
}

export interface PatternOptions {
  readonly forms: CharacterForms;
  /** Whether it may match a part of the text, as `pattern` in JSON Schema does. */
  readonly isSearch: boolean;
}

const ALL: CharacterSet = [[0, 0x10ffff]];
const LINE_ENDS: CharacterSet = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const DIGITS: CharacterSet = [[0x30, 0x39]];
const WORD: CharacterSet = [...DIGITS, [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]];
const SPACES: CharacterSet = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];

/**
 * The texts that it matches.
 * @throws `invalid_value` if it is malformed; `unsupported_value`
 */
export function patternExpression(pattern: string, { forms, isSearch }: PatternOptions): Expression {
  const convert = new Converter(forms);
  const anything = repeat(forms.set(setOf(ALL)), 0);
  return choice(
    topLevelPaths(parse(pattern).alternatives).map(({ elements }) => {
      const inner = [...elements];
      const startsAtStart = isAnchor(inner[0], "start");
      while (isAnchor(inner[0], "start")) inner.shift();
      const endsAtEnd = isAnchor(inner.at(-1), "end");
      while (isAnchor(inner.at(-1), "end")) inner.pop();
      const body = convert.sequence(inner);
      if (!isSearch) return body;
      return sequence(...(startsAtStart ? [] : [anything]), body, ...(endsAtEnd ? [] : [anything]));
    }),
  );
}

/** With the flag `u`, which JSON Schema recommends; without it for patterns that it rules out. */
function parse(pattern: string): AST.Pattern {
  const parser = new RegExpParser({ ecmaVersion: 2024 });
  const parseWith = (unicode: boolean) => parser.parsePattern(pattern, 0, pattern.length, { unicode });
  try {
    return parseWith(true);
  } catch {
    try {
      return parseWith(false);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new DenseMambaError("invalid_value", `must be a regular expression: ${why}`, { cause });
    }
  }
}

/** The alternatives, also of groups that stand alone, so that their anchors are seen. */
function topLevelPaths(alternatives: readonly AST.Alternative[]): AST.Alternative[] {
  return alternatives.flatMap((alternative) => {
    const [only] = alternative.elements;
    const isGroup = alternative.elements.length === 1 && (only?.type === "Group" || only?.type === "CapturingGroup");
    return isGroup ? topLevelPaths(only.alternatives) : [alternative];
  });
}

function isAnchor(element: AST.Element | undefined, kind: "start" | "end"): boolean {
  return element?.type === "Assertion" && element.kind === kind;
}

class Converter {
  readonly #forms: CharacterForms;

  constructor(forms: CharacterForms) {
    this.#forms = forms;
  }

  sequence(elements: readonly AST.Element[]): Expression {
    return elements.length === 0 ? EMPTY : sequence(...elements.map((element) => this.#element(element)));
  }

  #element(element: AST.Element): Expression {
    switch (element.type) {
      case "Character":
        return this.#forms.character(element.value);
      case "CharacterSet":
        return this.#forms.set(setOf(rangesOf(element)));
      case "CharacterClass": {
        const set = setOf(element.elements.flatMap((part) => rangesOf(part)));
        return this.#forms.set(element.negate ? setOf(complement(set)) : set);
      }
      case "Group":
      case "CapturingGroup":
        return choice(element.alternatives.map(({ elements }) => this.sequence(elements)));
      case "Quantifier": {
        const { min, max } = element;
        const largest = max === Number.POSITIVE_INFINITY ? min : max;
        if (largest > MAX_COUNT) {
          const message = `must repeat its parts at most ${MAX_COUNT} times; got ${element.raw.slice(-32)}`;
          throw new DenseMambaError("unsupported_value", message);
        }
        return repeat(this.#element(element.element), min, max);
      }
      default:
        throw notSupported(element.raw);
    }
  }
}

function rangesOf(
  part: AST.CharacterSet | AST.ClassRangesCharacterClassElement | AST.CharacterClassElement,
): CharacterSet {
  switch (part.type) {
    case "Character":
      return [[part.value, part.value]];
    case "CharacterClassRange":
      return [[part.min.value, part.max.value]];
    case "CharacterSet":
      switch (part.kind) {
        case "any":
          return complement(LINE_ENDS);
        case "digit":
          return part.negate ? complement(DIGITS) : DIGITS;
        case "space":
          return part.negate ? complement(SPACES) : SPACES;
        case "word":
          return part.negate ? complement(WORD) : WORD;
        default:
          throw notSupported(part.raw);
      }
    default:
      throw notSupported(part.raw);
  }
}

function notSupported(what: string): DenseMambaError {
  const shown = what.length > 64 ? `${what.slice(0, 61)}...` : what;
  const only = "anchors at the ends, groups, classes and repetitions are supported";
  return new DenseMambaError("unsupported_value", `has ${shown}, which a grammar can't say: ${only}`);
}
