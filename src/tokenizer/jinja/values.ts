/**
 * Python's values: types, iteration and equality. Integers are numbers and lists are arrays;
 * other types are classes.
 */
import { TemplateError, unsupported } from "./error.ts";
import type { Runtime } from "./runtime.ts";
import { codePoints, numCodePoints } from "./text.ts";

export type Value =
  | null
  | boolean
  | number
  | string
  | Value[]
  | Float
  | Tuple
  | Dict
  | DictView
  | Range
  | Iter
  | Namespace
  | Loop
  | Callable
  | Undefined;

export class Float {
  readonly value: number;

  constructor(value: number) {
    if (!Number.isFinite(value)) throw unsupported("an infinite number or NaN");
    this.value = value;
  }
}

export class Tuple {
  readonly items: readonly Value[];

  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** One of `groupby`: a tuple whose items have names. */
export class Group extends Tuple {
  readonly grouper: Value;
  readonly list: Value[];

  constructor(grouper: Value, list: Value[]) {
    super([grouper, list]);
    this.grouper = grouper;
    this.list = list;
  }
}

/** Keys that are equal in Python are the same: 1, 1.0 and True. */
export class Dict {
  readonly #entries = new Map<unknown, [Value, Value]>();

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    for (const [key, value] of entries) this.set(key, value);
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(identity(key))?.[1];
  }

  has(key: Value): boolean {
    return this.#entries.has(identity(key));
  }

  set(key: Value, value: Value): void {
    const id = identity(key);
    const entry = this.#entries.get(id);
    if (entry) entry[1] = value;
    else this.#entries.set(id, [key, value]);
  }

  *entries(): Generator<readonly [Value, Value]> {
    yield* this.#entries.values();
  }

  *keys(): Generator<Value> {
    for (const [key] of this.#entries.values()) yield key;
  }

  *values(): Generator<Value> {
    for (const [, value] of this.#entries.values()) yield value;
  }
}

export class DictView {
  readonly kind: "keys" | "values" | "items";
  readonly dict: Dict;

  constructor(kind: "keys" | "values" | "items", dict: Dict) {
    this.kind = kind;
    this.dict = dict;
  }

  *[Symbol.iterator](): Generator<Value> {
    if (this.kind === "keys") yield* this.dict.keys();
    else if (this.kind === "values") yield* this.dict.values();
    else for (const entry of this.dict.entries()) yield new Tuple(entry);
  }
}

export class Range {
  readonly start: number;
  readonly stop: number;
  readonly step: number;
  readonly length: number;

  constructor(start: number, stop: number, step: number) {
    this.start = start;
    this.stop = stop;
    this.step = step;
    this.length = Math.max(0, Math.ceil((stop - start) / step));
  }

  at(index: number): number {
    return this.start + index * this.step;
  }

  *[Symbol.iterator](): Generator<number> {
    for (let i = 0; i < this.length; i++) yield this.at(i);
  }
}

/** A generator, as `map` and similar filters return: it can be iterated once. */
export class Iter {
  readonly #items: Iterator<Value>;

  constructor(items: Iterator<Value>) {
    this.#items = items;
  }

  [Symbol.iterator](): Iterator<Value> {
    return { next: () => this.#items.next() };
  }
}

export class Namespace {
  readonly attributes = new Dict();
}

export interface Arguments {
  readonly args: readonly Value[];
  readonly kwargs: ReadonlyMap<string, Value>;
}

/**
 * A function, a method of a value, or a macro. A call block's `caller` is a macro without a name.
 */
export class Callable {
  readonly kind: "function" | "method" | "macro";
  readonly name: string;
  readonly call: (given: Arguments, runtime: Runtime) => Value;

  constructor(kind: Callable["kind"], name: string, call: Callable["call"]) {
    this.kind = kind;
    this.name = name;
    this.call = call;
  }
}

/** The value of `loop`. */
export class Loop {
  readonly iterable: Value;
  readonly depth0: number;
  readonly recurse: ((iterable: Value, depth0: number) => string) | undefined;
  index0 = -1;
  #iterator: Iterator<Value>;
  #length: number | undefined;
  #after: IteratorResult<Value> | undefined;
  #current: Value | undefined;
  #before: Value | undefined;
  #changed: Value | undefined;

  constructor(iterable: Value, depth0 = 0, recurse?: (iterable: Value, depth0: number) => string) {
    this.#iterator = iterate(iterable);
    this.iterable = iterable;
    this.depth0 = depth0;
    this.recurse = recurse;
  }

  next(): Value | undefined {
    const result = this.#peek();
    this.#after = undefined;
    if (result.done) return undefined;
    this.index0++;
    this.#before = this.#current;
    this.#current = result.value;
    return result.value;
  }

  #peek(): IteratorResult<Value> {
    this.#after ??= this.#iterator.next();
    return this.#after;
  }

  get length(): number {
    this.#length ??= lengthOf(this.iterable);
    if (this.#length === undefined) {
      const rest: Value[] = [];
      for (let next = this.#iterator.next(); !next.done; next = this.#iterator.next()) rest.push(next.value);
      this.#iterator = rest[Symbol.iterator]();
      this.#length = rest.length + this.index0 + 1 + (this.#after && !this.#after.done ? 1 : 0);
    }
    return this.#length;
  }

  get isLast(): boolean {
    return this.#peek().done === true;
  }

  get previous(): Value {
    return this.index0 === 0 ? new Undefined("there is no previous item") : this.#before!;
  }

  get following(): Value {
    const next = this.#peek();
    return next.done ? new Undefined("there is no next item") : next.value;
  }

  hasChanged(values: Tuple, runtime: Runtime): boolean {
    if (this.#changed !== undefined && equals(this.#changed, values, runtime)) return false;
    this.#changed = values;
    return true;
  }
}

export class Undefined {
  readonly message: string;

  constructor(message: string) {
    this.message = message;
  }
}

/** Equal keys have the same identity. @throws TemplateError for values that Python cannot hash */
function identity(key: Value): unknown {
  if (key === null || typeof key === "string" || typeof key === "number") return key;
  if (typeof key === "boolean") return Number(key);
  if (key instanceof Float) return key.value;
  if (Array.isArray(key) || key instanceof Dict) throw new TemplateError(`unhashable type: '${typeOf(key)}'`);
  throw unsupported(`${typeOf(key)} as a key`);
}

export function isHashable(value: Value): boolean {
  return !Array.isArray(value) && !(value instanceof Dict);
}

/** A set of values, by equality. */
export class ValueSet {
  readonly #ids = new Set<unknown>();

  /** @returns whether it was new */
  add(value: Value): boolean {
    const id = value instanceof Undefined ? Undefined : identity(value);
    const isNew = !this.#ids.has(id);
    this.#ids.add(id);
    return isNew;
  }
}

export function typeOf(value: Value): string {
  if (value === null) return "NoneType";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "number") return "int";
  if (typeof value === "string") return "str";
  if (Array.isArray(value)) return "list";
  if (value instanceof Float) return "float";
  if (value instanceof Tuple) return "tuple";
  if (value instanceof Dict) return "dict";
  if (value instanceof DictView) return `dict_${value.kind}`;
  if (value instanceof Range) return "range";
  if (value instanceof Iter) return "generator";
  if (value instanceof Namespace) return "Namespace";
  if (value instanceof Loop) return "LoopContext";
  if (value instanceof Undefined) return "Undefined";
  return value.kind === "macro" ? "Macro" : value.kind;
}

export function isTrue(value: Value): boolean {
  if (value === null || typeof value !== "object") return Boolean(value);
  if (value instanceof Float) return value.value !== 0;
  if (value instanceof Undefined) return false;
  const length = lengthOf(value);
  return length === undefined || length > 0;
}

/** @returns undefined if Python's len() does not take it */
export function lengthOf(value: Value): number | undefined {
  if (typeof value === "string") return numCodePoints(value);
  if (value === null || typeof value !== "object") return undefined;
  if (Array.isArray(value) || value instanceof Range || value instanceof Loop) return value.length;
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof DictView) return value.dict.size;
  return value instanceof Undefined ? 0 : undefined;
}

/** @returns undefined if it is not iterable */
export function tryIterate(value: Value): Iterator<Value> | undefined {
  if (typeof value === "string") return codePoints(value);
  if (value === null || typeof value !== "object") return undefined;
  if (Array.isArray(value)) return value[Symbol.iterator]();
  if (value instanceof Tuple) return value.items[Symbol.iterator]();
  if (value instanceof Dict) return value.keys();
  if (value instanceof DictView || value instanceof Range || value instanceof Iter) return value[Symbol.iterator]();
  if (value instanceof Undefined) return [][Symbol.iterator]();
  if (value instanceof Loop) throw unsupported("going through loop");
  return undefined;
}

export function iterate(value: Value): Iterator<Value> {
  const iterator = tryIterate(value);
  if (iterator === undefined) throw new TemplateError(`'${typeOf(value)}' object is not iterable`);
  return iterator;
}

export function* each(value: Value, runtime: Runtime): Generator<Value> {
  const iterator = iterate(value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    runtime.spend(1);
    yield next.value;
  }
}

/** As a number, if it is one in Python, as booleans are. */
export function numberIn(value: Value): number | undefined {
  if (typeof value === "number") return value;
  if (typeof value === "boolean") return Number(value);
  return value instanceof Float ? value.value : undefined;
}

/** Integers and booleans. */
export function integerIn(value: Value): number | undefined {
  return typeof value === "number" || typeof value === "boolean" ? Number(value) : undefined;
}

export function equals(a: Value, b: Value, runtime: Runtime): boolean {
  runtime.spend(1);
  if (typeof a === "string" && typeof b === "string") {
    if (a.length !== b.length) return false;
    runtime.spendText(a);
    return a === b;
  }
  if (a === b) return true;
  if (typeof a === "string" || typeof b === "string") return false;
  const [x, y] = [numberIn(a), numberIn(b)];
  if (x !== undefined || y !== undefined) return x === y;
  if (Array.isArray(a)) return Array.isArray(b) && areEqual(a, b, runtime);
  if (a instanceof Tuple) return b instanceof Tuple && areEqual(a.items, b.items, runtime);
  if (a instanceof Dict) return b instanceof Dict && haveEqualEntries(a, b, runtime);
  if (a instanceof Undefined) return b instanceof Undefined;
  const isKnown = (value: Value) => value === null || value instanceof Undefined || isContainer(value);
  if (isKnown(a) || isKnown(b)) return false;
  throw unsupported(`comparing ${typeOf(a)} with ${typeOf(b)}`);
}

function isContainer(value: Value): boolean {
  return Array.isArray(value) || value instanceof Tuple || value instanceof Dict;
}

function areEqual(a: readonly Value[], b: readonly Value[], runtime: Runtime): boolean {
  return a.length === b.length && a.every((item, i) => equals(item, b[i]!, runtime));
}

function haveEqualEntries(a: Dict, b: Dict, runtime: Runtime): boolean {
  if (a.size !== b.size) return false;
  for (const [key, value] of a.entries()) {
    const other = b.get(key);
    if (other === undefined || !equals(value, other, runtime)) return false;
  }
  return true;
}

/** From JSON. @throws TemplateError for numbers that JavaScript cannot hold */
export function fromJson(given: unknown, runtime: Runtime): Value {
  runtime.spend(1);
  if (given === null || typeof given === "boolean" || typeof given === "string") return given;
  if (typeof given === "number") {
    if (!Number.isInteger(given)) return new Float(given);
    if (!Number.isSafeInteger(given)) throw unsupported(`the integer ${given}`);
    return given === 0 ? 0 : given;
  }
  if (Array.isArray(given)) return given.map((item) => fromJson(item, runtime));
  const dict = new Dict();
  for (const [key, value] of Object.entries(given as object)) {
    if (value !== undefined) dict.set(key, fromJson(value, runtime));
  }
  return dict;
}
