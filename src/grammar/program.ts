/**
 * A grammar → instructions over bytes, as a parser with a stack runs them. Characters become their
 * UTF-8; a repetition keeps its count on the stack, so that it takes no more instructions for a
 * thousand times than for two.
 */
import type { CharacterSet, Expression, ProductiveGrammar } from "./expression.ts";

export type Instruction =
  /** Reads a byte from `low` to `high`. */
  | { readonly op: "byte"; readonly low: number; readonly high: number; readonly next: number }
  /** Reads any byte; `next` by its value. */
  | { readonly op: "table"; readonly next: Int32Array }
  | { readonly op: "split"; next: readonly number[] }
  /** Runs from the rule's start up to `return`, then from `next`. */
  | { readonly op: "call"; readonly rule: number; readonly next: number }
  /** Runs from `item` up to `return`, `min` to `max` times, then from `next`. */
  | { readonly op: "repeat"; readonly min: number; readonly max: number; readonly item: number; readonly next: number }
  | { readonly op: "return" };

export interface Program {
  readonly instructions: readonly Instruction[];
  readonly start: number;
  /** Where each rule starts. */
  readonly rules: readonly number[];
}

/** The index of the one `return`. */
export const RETURN = 0;

export function compileProgram({ start, rules }: ProductiveGrammar): Program {
  const emitter = new Emitter([...rules.keys()]);
  const starts = [...rules.values()].map((body) => emitter.emit(body, RETURN));
  return { instructions: emitter.instructions, rules: starts, start: emitter.emit(start, RETURN) };
}

class Emitter {
  readonly instructions: Instruction[] = [{ op: "return" }];
  readonly #ruleOf: ReadonlyMap<string, number>;

  constructor(names: readonly string[]) {
    this.#ruleOf = new Map(names.map((name, index) => [name, index]));
  }

  /** @returns where the expression starts; `next` comes after it */
  emit(expression: Expression, next: number): number {
    switch (expression.type) {
      case "literal":
        return this.#bytes(Buffer.from(expression.text, "utf8"), next);
      case "characters":
        return this.#characters(expression.set, next);
      case "sequence":
        return expression.parts.reduceRight((after, part) => this.emit(part, after), next);
      case "choice":
        return this.#choice(expression.options, next);
      case "rule":
        return this.#add({ op: "call", rule: this.#ruleOf.get(expression.name)!, next });
      case "repeat":
        return this.#repeat(expression, next);
      case "dispatch":
        return this.#dispatch(expression, next);
    }
  }

  #add(instruction: Instruction): number {
    return this.instructions.push(instruction) - 1;
  }

  #split(next: readonly number[]): number {
    return next.length === 1 ? next[0]! : this.#add({ op: "split", next });
  }

  /** Literals share their beginnings: of a long list few are alive at once. */
  #choice(options: readonly Expression[], next: number): number {
    const literals = options.filter((option) => option.type === "literal");
    const others = options.filter((option) => option.type !== "literal");
    const texts = literals.map(({ text }) => Buffer.from(text, "utf8")).sort(Buffer.compare);
    return this.#split([...this.#texts(texts, 0, next), ...others.map((option) => this.emit(option, next))]);
  }

  /** @param texts sorted; the first `depth` bytes of all are the same */
  #texts(texts: readonly Uint8Array[], depth: number, next: number): number[] {
    const starts: number[] = [];
    for (let first = 0; first < texts.length; ) {
      const byte = texts[first]![depth];
      let end = first + 1;
      while (end < texts.length && texts[end]![depth] === byte) end++;
      if (byte === undefined) starts.push(next);
      else if (end === first + 1) starts.push(this.#bytes(texts[first]!.subarray(depth), next));
      else {
        const after = this.#split(this.#texts(texts.slice(first, end), depth + 1, next));
        starts.push(this.#add({ op: "byte", low: byte, high: byte, next: after }));
      }
      first = end;
    }
    return starts;
  }

  #bytes(bytes: Uint8Array, next: number): number {
    return bytes.reduceRight((after, byte) => this.#add({ op: "byte", low: byte, high: byte, next: after }), next);
  }

  #characters(set: CharacterSet, next: number): number {
    return this.#split(
      set.flatMap(([first, last]) =>
        utf8Ranges(first, last).map((ranges) =>
          ranges.reduceRight((after, [low, high]) => this.#add({ op: "byte", low, high, next: after }), next),
        ),
      ),
    );
  }

  #repeat({ item, min, max }: Extract<Expression, { type: "repeat" }>, next: number): number {
    if (min === 0 && max === 1) return this.#split([this.emit(item, next), next]);
    if (min <= 1 && max === Number.POSITIVE_INFINITY) {
      const loop: Instruction = { op: "split", next: [] };
      const at = this.#add(loop);
      const body = this.emit(item, at);
      loop.next = [body, next];
      return min === 0 ? at : body;
    }
    return this.#add({ op: "repeat", min, max, item: this.emit(item, RETURN), next });
  }

  /** Aho and Corasick's automaton of the triggers: a table for each beginning of one. */
  #dispatch({ triggers, loops, mayEnd }: Extract<Expression, { type: "dispatch" }>, next: number): number {
    const root: TriggerNode = { children: new Map(), rule: undefined };
    const nodes = [root];
    for (const [trigger, name] of triggers) {
      let node = root;
      for (const byte of Buffer.from(trigger, "utf8")) {
        let child = node.children.get(byte);
        if (child === undefined) {
          child = { children: new Map(), rule: undefined };
          nodes.push(child);
          node.children.set(byte, child);
        }
        node = child;
      }
      node.rule = this.#ruleOf.get(name)!;
    }
    const tables = new Map(nodes.map((node) => [node, new Int32Array(256)]));
    const places = new Map<TriggerNode, number>();
    for (const node of nodes) {
      const table = this.#add({ op: "table", next: tables.get(node)! });
      places.set(node, mayEnd ? this.#split([table, next]) : table);
    }
    const after = loops ? places.get(root)! : next;
    const fallbacks = new Map<TriggerNode, TriggerNode>();
    // By depth: a node's fallback, the longest other trigger begun at its end, is known before it.
    for (let level = [root]; level.length > 0; level = level.flatMap(({ children }) => [...children.values()])) {
      for (const node of level) {
        const table = tables.get(node)!;
        const fallback = fallbacks.get(node);
        if (fallback === undefined) table.fill(places.get(root)!);
        else table.set(tables.get(fallback)!);
        for (const [byte, child] of node.children) {
          fallbacks.set(child, fallback === undefined ? root : (fallOf(fallback, byte, fallbacks) ?? root));
          table[byte] =
            child.rule === undefined ? places.get(child)! : this.#add({ op: "call", rule: child.rule, next: after });
        }
      }
    }
    return places.get(root)!;
  }
}

interface TriggerNode {
  readonly children: Map<number, TriggerNode>;
  rule: number | undefined;
}

function fallOf(
  from: TriggerNode,
  byte: number,
  fallbacks: ReadonlyMap<TriggerNode, TriggerNode>,
): TriggerNode | undefined {
  for (let node: TriggerNode | undefined = from; node !== undefined; node = fallbacks.get(node)) {
    const child = node.children.get(byte);
    if (child !== undefined) return child;
  }
  return undefined;
}

type ByteRange = readonly [low: number, high: number];

/** Code points up to these take one byte more each. */
const LAST_BY_LENGTH = [0x7f, 0x7ff, 0xffff, 0x10ffff];

/** Sequences of byte ranges that together are the UTF-8 of the code points. */
export function utf8Ranges(first: number, last: number): ByteRange[][] {
  for (const limit of LAST_BY_LENGTH) {
    if (first <= limit && last > limit) return [...utf8Ranges(first, limit), ...utf8Ranges(limit + 1, last)];
  }
  if (last <= 0x7f) return [[[first, last]]];
  // Cut where the bytes before the last six, twelve or eighteen bits differ.
  for (const bits of [6, 12, 18]) {
    const mask = 2 ** bits - 1;
    if (first >> bits === last >> bits) continue;
    if ((first & mask) !== 0) return [...utf8Ranges(first, first | mask), ...utf8Ranges((first | mask) + 1, last)];
    if ((last & mask) !== mask) return [...utf8Ranges(first, (last & ~mask) - 1), ...utf8Ranges(last & ~mask, last)];
  }
  const [low, high] = [first, last].map((point) => Buffer.from(String.fromCodePoint(point), "utf8"));
  return [Array.from(low!, (byte, index) => [byte, high![index]!] as const)];
}
