/**
 * Context-free grammars as trees: what JSON schemas, regular expressions and EBNF become before
 * they are compiled to an automaton. Finds rules that no finite text matches, and leaves them out.
 */
import { strict as assert } from "node:assert";

export type Expression =
  | { readonly type: "literal"; readonly text: string }
  | { readonly type: "characters"; readonly set: CharacterSet }
  | { readonly type: "sequence"; readonly parts: readonly Expression[] }
  | { readonly type: "choice"; readonly options: readonly Expression[] }
  /** `max` may be infinite. */
  | { readonly type: "repeat"; readonly item: Expression; readonly min: number; readonly max: number }
  | { readonly type: "rule"; readonly name: string }
  /**
   * Free text up to a trigger, then the trigger's rule, and with `loops` free text again.
   * `mayEnd`: the text may end before a trigger. All rules must match something.
   */
  | {
      readonly type: "dispatch";
      readonly triggers: ReadonlyMap<string, string>;
      readonly loops: boolean;
      readonly mayEnd: boolean;
    };

/** Code points as ranges: ascending, apart from each other, without surrogates. */
export type CharacterSet = readonly (readonly [first: number, last: number])[];

/** Of items, of characters, and of what a pattern or a grammar repeats. */
export const MAX_COUNT = 10_000;

/** Matches nothing, not even the empty text. */
export const NOTHING: Expression = { type: "choice", options: [] };
export const EMPTY: Expression = { type: "literal", text: "" };

export function literal(text: string): Expression {
  return { type: "literal", text };
}

export function sequence(...parts: readonly Expression[]): Expression {
  return parts.length === 1 ? parts[0]! : { type: "sequence", parts };
}

export function choice(options: readonly Expression[]): Expression {
  return options.length === 1 ? options[0]! : { type: "choice", options };
}

export function repeat(item: Expression, min: number, max = Number.POSITIVE_INFINITY): Expression {
  if (min > max) return NOTHING;
  if (max === 0) return EMPTY;
  return min === 1 && max === 1 ? item : { type: "repeat", item, min, max };
}

export function optional(item: Expression): Expression {
  return repeat(item, 0, 1);
}

export function rule(name: string): Expression {
  return { type: "rule", name };
}

export function characters(set: CharacterSet): Expression {
  return set.length === 0 ? NOTHING : { type: "characters", set };
}

const MAX_CODE_POINT = 0x10ffff;
const SURROGATES: CharacterSet = [[0xd800, 0xdfff]];

/** Sorted, merged, without surrogates, which no text in UTF-8 has. */
export function setOf(ranges: Iterable<readonly [number, number]>): CharacterSet {
  return intersect(merged(ranges), complement(SURROGATES));
}

/** All other code points, surrogates too. */
export function complement(set: CharacterSet): CharacterSet {
  const result: [number, number][] = [];
  let next = 0;
  for (const [first, last] of set) {
    if (first > next) result.push([next, first - 1]);
    next = last + 1;
  }
  if (next <= MAX_CODE_POINT) result.push([next, MAX_CODE_POINT]);
  return result;
}

export function intersect(a: CharacterSet, b: CharacterSet): CharacterSet {
  const result: [number, number][] = [];
  let [i, j] = [0, 0];
  while (i < a.length && j < b.length) {
    const [first, last] = [Math.max(a[i]![0], b[j]![0]), Math.min(a[i]![1], b[j]![1])];
    if (first <= last) result.push([first, last]);
    if (a[i]![1] < b[j]![1]) i++;
    else j++;
  }
  return result;
}

function merged(ranges: Iterable<readonly [number, number]>): CharacterSet {
  const result: [number, number][] = [];
  for (const [first, last] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const previous = result.at(-1);
    if (previous !== undefined && first <= previous[1] + 1) previous[1] = Math.max(previous[1], last);
    else result.push([first, last]);
  }
  return result;
}

/** Rules by name. Names are given here, so that none is taken twice. */
export class Grammar {
  readonly #rules = new Map<string, Expression>();
  #numNodes = 0;
  readonly #maxNodes: number;
  readonly #tooLarge: (maxNodes: number) => Error;

  /** @param tooLarge makes the error for more than `maxNodes` nodes */
  constructor(maxNodes: number, tooLarge: (maxNodes: number) => Error) {
    this.#maxNodes = maxNodes;
    this.#tooLarge = tooLarge;
  }

  /** A name for a rule that is defined later. */
  reserve(): string {
    const name = `_${this.#rules.size}`;
    this.#rules.set(name, NOTHING);
    return name;
  }

  define(name: string, expression: Expression): void {
    this.#numNodes += countNodes(expression);
    if (this.#numNodes > this.#maxNodes) throw this.#tooLarge(this.#maxNodes);
    this.#rules.set(name, expression);
  }

  add(expression: Expression): Expression {
    const name = this.reserve();
    this.define(name, expression);
    return rule(name);
  }

  /** The rules that `start` needs, without what no text matches. Undefined: no text matches it. */
  productive(start: Expression): ProductiveGrammar | undefined {
    const productive = this.#fixedPoint((body, known) => isProductive(body, known));
    const root = withoutNothing(start, productive);
    if (root === undefined) return undefined;
    const rules = new Map<string, Expression>();
    const waiting = [...namesIn(root)];
    for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
      if (rules.has(name)) continue;
      const body = withoutNothing(this.#rules.get(name)!, productive);
      assert(body !== undefined, "a productive rule has a productive body");
      rules.set(name, body);
      waiting.push(...namesIn(body));
    }
    return { start: root, rules };
  }

  /** A rule that can begin with itself, which would go on for ever without a character. */
  findLeftRecursion(): string | undefined {
    const nullable = this.#fixedPoint((body, known) => isNullable(body, known));
    const state = new Map<string, "open" | "done">();
    for (const first of this.#rules.keys()) {
      const path: { readonly name: string; readonly leading: Iterator<string> }[] = [];
      const enter = (name: string) => {
        state.set(name, "open");
        path.push({ name, leading: leadingNames(this.#rules.get(name)!, nullable) });
      };
      if (!state.has(first)) enter(first);
      for (let top = path.at(-1); top !== undefined; top = path.at(-1)) {
        const { done, value } = top.leading.next();
        if (done) {
          state.set(top.name, "done");
          path.pop();
        } else if (state.get(value) === "open") return value;
        else if (!state.has(value)) enter(value);
      }
    }
    return undefined;
  }

  /** The rules for which `holds`, given those for which it is known to. */
  #fixedPoint(holds: (body: Expression, known: ReadonlySet<string>) => boolean): ReadonlySet<string> {
    const usedBy = new Map<string, string[]>();
    for (const [name, body] of this.#rules) {
      for (const used of namesIn(body)) {
        const users = usedBy.get(used);
        if (users === undefined) usedBy.set(used, [name]);
        else users.push(name);
      }
    }
    const known = new Set<string>();
    const waiting = [...this.#rules.keys()];
    for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
      if (known.has(name) || !holds(this.#rules.get(name)!, known)) continue;
      known.add(name);
      waiting.push(...(usedBy.get(name) ?? []));
    }
    return known;
  }
}

export interface ProductiveGrammar {
  readonly start: Expression;
  readonly rules: ReadonlyMap<string, Expression>;
}

function countNodes(expression: Expression): number {
  switch (expression.type) {
    case "literal":
      return 1 + expression.text.length;
    case "characters":
      // Beyond ASCII a range takes several bytes, and sequences of them.
      return expression.set.reduce((sum, [, last]) => sum + (last < 0x80 ? 1 : 4), 0);
    case "sequence":
      return expression.parts.reduce((sum, part) => sum + countNodes(part), 1);
    case "choice":
      return expression.options.reduce((sum, option) => sum + countNodes(option), 1);
    case "repeat":
      return 1 + countNodes(expression.item);
    case "rule":
      return 1;
    case "dispatch":
      // A table of 256 for each character.
      return [...expression.triggers.keys()].reduce((sum, trigger) => sum + 16 * trigger.length, 16);
  }
}

function isProductive(expression: Expression, productive: ReadonlySet<string>): boolean {
  switch (expression.type) {
    case "literal":
      return true;
    case "characters":
      return expression.set.length > 0;
    case "sequence":
      return expression.parts.every((part) => isProductive(part, productive));
    case "choice":
      return expression.options.some((option) => isProductive(option, productive));
    case "repeat":
      return expression.min === 0 || isProductive(expression.item, productive);
    case "rule":
      return productive.has(expression.name);
    case "dispatch":
      return [...expression.triggers.values()].every((name) => productive.has(name));
  }
}

function isNullable(expression: Expression, nullable: ReadonlySet<string>): boolean {
  switch (expression.type) {
    case "literal":
      return expression.text === "";
    case "characters":
      return false;
    case "sequence":
      return expression.parts.every((part) => isNullable(part, nullable));
    case "choice":
      return expression.options.some((option) => isNullable(option, nullable));
    case "repeat":
      return expression.min === 0 || isNullable(expression.item, nullable);
    case "rule":
      return nullable.has(expression.name);
    case "dispatch":
      return expression.mayEnd;
  }
}

/** The rules that may come before any character. */
function* leadingNames(expression: Expression, nullable: ReadonlySet<string>): Generator<string, void, undefined> {
  switch (expression.type) {
    case "rule":
      yield expression.name;
      return;
    case "sequence":
      for (const part of expression.parts) {
        yield* leadingNames(part, nullable);
        if (!isNullable(part, nullable)) return;
      }
      return;
    case "choice":
      for (const option of expression.options) yield* leadingNames(option, nullable);
      return;
    case "repeat":
      yield* leadingNames(expression.item, nullable);
  }
}

/** Undefined if nothing is left. */
function withoutNothing(expression: Expression, productive: ReadonlySet<string>): Expression | undefined {
  if (!isProductive(expression, productive)) return undefined;
  switch (expression.type) {
    case "choice": {
      const options = expression.options.map((option) => withoutNothing(option, productive));
      return choice(options.filter((option) => option !== undefined));
    }
    case "sequence":
      return sequence(...expression.parts.map((part) => withoutNothing(part, productive)!));
    case "repeat": {
      const item = withoutNothing(expression.item, productive);
      return item === undefined ? EMPTY : { ...expression, item };
    }
    default:
      return expression;
  }
}

function* namesIn(expression: Expression): Generator<string, void, undefined> {
  switch (expression.type) {
    case "rule":
      yield expression.name;
      return;
    case "sequence":
      for (const part of expression.parts) yield* namesIn(part);
      return;
    case "choice":
      for (const option of expression.options) yield* namesIn(option);
      return;
    case "repeat":
      yield* namesIn(expression.item);
      return;
    case "dispatch":
      yield* expression.triggers.values();
  }
}
