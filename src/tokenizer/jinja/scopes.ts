/**
 * Resolves names to variables, as jinja2 does before a template runs. Every block has its own
 * variables. A variable starts with the value of the enclosing block, with the template's argument
 * of that name, or undefined, depending on where the block first sets and reads it. A block in a
 * loop starts anew in each round.
 */
import type { Expression, Statement, Target } from "./ast.ts";
import { expressionsOf, forEachName } from "./walk.ts";

/** The value of a variable when its block is entered. */
export type Load =
  | { readonly type: "parameter" }
  | { readonly type: "argument"; readonly name: string }
  | { readonly type: "outer"; readonly from: Variable }
  | { readonly type: "undefined" };

/** A slot in the memory of a template, a macro or a recursive loop. */
export interface Variable {
  readonly owner: Routine;
  readonly slot: number;
}

/**
 * Has its own memory each time it runs. Blocks at the same depth use the same slots one after
 * another.
 */
export class Routine {
  readonly outer: Routine | undefined;
  readonly #slots = new Map<string, number>();

  constructor(outer?: Routine) {
    this.outer = outer;
  }

  slot(key: string): number {
    const slot = this.#slots.get(key) ?? this.#slots.size;
    this.#slots.set(key, slot);
    return slot;
  }
}

export class Scope {
  readonly routine: Routine;
  readonly outer: Scope | undefined;
  readonly #level: number;
  readonly #variables: Map<string, Variable>;
  readonly #loads: Map<string, Load>;
  readonly #stores: Set<string>;

  constructor(routine: Routine, outer?: Scope, copied?: Scope) {
    this.routine = routine;
    this.outer = outer;
    this.#level = copied ? copied.#level : outer ? outer.#level + 1 : 0;
    this.#variables = new Map(copied ? copied.#variables : []);
    this.#loads = new Map(copied ? copied.#loads : []);
    this.#stores = new Set(copied ? copied.#stores : []);
  }

  /** The variables of this block, and how each starts. */
  get loads(): [Variable, Load][] {
    return [...this.#loads].map(([name, load]) => [this.#variables.get(name)!, load]);
  }

  find(name: string): Variable | undefined {
    return this.#variables.get(name) ?? this.outer?.find(name);
  }

  parameter(name: string): Variable {
    this.#stores.add(name);
    return this.#define(name, { type: "parameter" });
  }

  statements(statements: readonly Statement[]): void {
    for (const statement of statements) this.#statement(statement);
  }

  target(target: Target, asParameter: boolean): void {
    switch (target.type) {
      case "Name":
        if (asParameter) this.parameter(target.name);
        else this.#store(target.name);
        return;
      case "TupleTarget":
        for (const item of target.items) this.target(item, asParameter);
        return;
      case "NamespaceTarget":
        this.#load(target.name);
    }
  }

  expression(expression: Expression): void {
    forEachName(expression, (name) => this.#load(name));
  }

  #statement(statement: Statement): void {
    for (const part of expressionsOf(statement)) this.expression(part);
    switch (statement.type) {
      case "If":
        this.#branches([statement.body, statement.otherwise]);
        break;
      case "Assign":
      case "AssignBlock":
        this.target(statement.target, false);
        break;
      case "Macro":
        this.#store(statement.name);
    }
  }

  /** A variable that only some branches set starts as if none did. */
  #branches(branches: readonly (readonly Statement[])[]): void {
    const scopes = branches.map((statements) => {
      const scope = new Scope(this.routine, this.outer, this);
      scope.statements(statements);
      return scope;
    });
    const stores = new Set(scopes.flatMap((scope) => [...scope.#stores]).filter((name) => !this.#stores.has(name)));
    for (const scope of scopes) {
      for (const [name, variable] of scope.#variables) this.#variables.set(name, variable);
      for (const [name, load] of scope.#loads) this.#loads.set(name, load);
      for (const name of scope.#stores) this.#stores.add(name);
    }
    for (const name of stores) {
      const from = this.outer?.find(name);
      this.#loads.set(name, from ? { type: "outer", from } : { type: "argument", name });
    }
  }

  #load(name: string): void {
    if (this.find(name) === undefined) this.#define(name, { type: "argument", name });
  }

  #store(name: string): void {
    this.#stores.add(name);
    if (this.#variables.has(name)) return;
    const from = this.outer?.find(name);
    this.#define(name, from ? { type: "outer", from } : { type: "undefined" });
  }

  #define(name: string, load: Load): Variable {
    const variable = { owner: this.routine, slot: this.routine.slot(`${this.#level} ${name}`) };
    this.#variables.set(name, variable);
    this.#loads.set(name, load);
    return variable;
  }
}
