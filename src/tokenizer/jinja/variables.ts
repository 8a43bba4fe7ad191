/**
 * Variables while a template runs: slots in frames, as `scopes.ts` lays them out. Makes the
 * functions that set them at a block's beginning, read them, assign to them and unset them.
 */
import type { Target } from "./ast.ts";
import { TemplateError } from "./error.ts";
import { GLOBALS, setAttribute } from "./globals.ts";
import type { Runtime } from "./runtime.ts";
import type { Scope, Variable } from "./scopes.ts";
import { iterate, Namespace, type Value } from "./values.ts";

/** The memory of one run of a routine. An empty slot is a variable that is not set. */
export class Frame {
  readonly slots: (Value | undefined)[] = [];
  readonly outer: Frame | undefined;

  constructor(outer?: Frame) {
    this.outer = outer;
  }
}

export interface Context {
  readonly runtime: Runtime;
  readonly variables: ReadonlyMap<string, Value>;
}

/** What is made of an expression. */
export type Evaluate = (frame: Frame, context: Context) => Value;
export type Store = (value: Value, frame: Frame, context: Context) => void;

/** Sets the variables of a block to their initial values. */
export function enter(scope: Scope): (frame: Frame, context: Context) => void {
  const loads = scope.loads.flatMap(([variable, load]): ((frame: Frame, context: Context) => void)[] => {
    const { slot } = variable;
    if (load.type === "parameter") return [];
    if (load.type === "undefined") {
      return [
        (frame) => {
          frame.slots[slot] = undefined;
        },
      ];
    }
    if (load.type === "argument") {
      const { name } = load;
      return [
        (frame, { variables }) => {
          frame.slots[slot] = variables.has(name) ? variables.get(name) : GLOBALS.get(name);
        },
      ];
    }
    const read = reader(load.from, scope);
    return [
      (frame) => {
        frame.slots[slot] = read(frame);
      },
    ];
  });
  return (frame, context) => {
    for (const load of loads) load(frame, context);
  };
}

/** Unsets a block's variables after it: their slots are reused, and macros may still read them. */
export function leave(scope: Scope): (frame: Frame) => void {
  const slots = scope.loads.map(([{ slot }]) => slot);
  return (frame) => {
    for (const slot of slots) frame.slots[slot] = undefined;
  };
}

/** @param scope in which the variable is read */
export function reader({ owner, slot }: Variable, { routine: own }: Scope): (frame: Frame) => Value | undefined {
  let depth = 0;
  for (let routine = own; routine !== owner; routine = routine.outer!) depth++;
  if (depth === 0) return (frame) => frame.slots[slot];
  if (depth === 1) return (frame) => frame.outer!.slots[slot];
  return (frame) => {
    let at = frame;
    for (let i = 0; i < depth; i++) at = at.outer!;
    return at.slots[slot];
  };
}

export function namespaceCheck(target: Target, scope: Scope): (frame: Frame) => void {
  if (target.type !== "NamespaceTarget") return () => {};
  const read = reader(scope.find(target.name)!, scope);
  return (frame) => {
    if (!(read(frame) instanceof Namespace)) {
      throw new TemplateError("cannot assign attribute on non-namespace object");
    }
  };
}

/** Stores a value under a target's name, or its items under the names of a tuple. */
export function assignment(target: Target, scope: Scope): Store {
  if (target.type === "Name") {
    const { slot } = scope.find(target.name)!;
    return (value, frame) => {
      frame.slots[slot] = value;
    };
  }
  if (target.type === "NamespaceTarget") {
    const read = reader(scope.find(target.name)!, scope);
    return (value, frame) => setAttribute(read(frame) as Namespace, target.attr, value);
  }
  const stores = target.items.map((item) => assignment(item, scope));
  return (value, frame, context) => {
    const iterator = iterate(value);
    const values: Value[] = [];
    for (let next = nextOf(iterator); next !== undefined && values.length <= stores.length; next = nextOf(iterator)) {
      values.push(next);
    }
    if (values.length !== stores.length) {
      throw new TemplateError(`expected ${stores.length} values to unpack, got ${values.length}`);
    }
    for (const [i, store] of stores.entries()) store(values[i]!, frame, context);
  };
}

export function nextOf(iterator: Iterator<Value>): Value | undefined {
  const next = iterator.next();
  return next.done ? undefined : next.value;
}
