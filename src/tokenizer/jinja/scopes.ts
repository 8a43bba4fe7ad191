/**
 * Resolves names to variables, as jinja2 does before a template runs. Every block has variables of its own. Each begins with
 * the value of the enclosing block, as the template's argument of that name, or undefined, depending on where in the block it
 * is first set and read. A block inside a loop begins anew in each round.
 */
import type { Arguments, Expression, Statement, Target } from "./ast.ts";

/** How a variable begins when its block is entered. */
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

/** Has memory of its own each time it runs. Blocks at the same depth use the same slots one after another. */
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

  /** The variables of this block, and how each begins. */
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

  /** A variable that only some branches set begins as if none did. */
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

/** Whether the name is read in these statements, before it is set there. */
export function reads(statements: readonly Statement[], name: string): boolean {
  let isRead = false;
  let isSet = false;
  walk(statements, {
    load: (loaded) => {
      if (loaded === name && !isSet) isRead = true;
    },
    store: (stored) => {
      if (stored === name) isSet = true;
    },
  });
  return isRead;
}

/** Whether the name is set anywhere in these statements, or by the target. */
export function writes(statements: readonly Statement[], name: string): boolean {
  let isSet = false;
  const store = (stored: string) => {
    if (stored === name) isSet = true;
  };
  walk(statements, { load: () => {}, store });
  return isSet;
}

interface Visitor {
  load(name: string): void;
  store(name: string): void;
}

/** All names, in the order of the fields of jinja2's nodes. */
function walk(statements: readonly Statement[], visitor: Visitor): void {
  const expression = (given: Expression | undefined) => given && forEachName(given, (name) => visitor.load(name));
  for (const statement of statements) {
    switch (statement.type) {
      case "Text":
      case "Break":
      case "Continue":
        break;
      case "Output":
        expression(statement.node);
        break;
      case "If":
        expression(statement.test);
        walk(statement.body, visitor);
        walk(statement.otherwise, visitor);
        break;
      case "Assign":
        walkTarget(statement.target, visitor);
        expression(statement.node);
        break;
      case "AssignBlock":
        walkTarget(statement.target, visitor);
        expression(statement.filter);
        walk(statement.body, visitor);
        break;
      case "For":
        walkTarget(statement.target, visitor);
        expression(statement.iter);
        walk(statement.body, visitor);
        walk(statement.otherwise, visitor);
        expression(statement.test);
        break;
      case "Macro":
      case "CallBlock":
        if (statement.type === "CallBlock") expression(statement.call);
        for (const { name } of statement.args) visitor.store(name);
        statement.defaults.forEach(expression);
        walk(statement.body, visitor);
        break;
      case "FilterBlock":
        walk(statement.body, visitor);
        expression(statement.filter);
        break;
      case "With":
        for (const target of statement.targets) walkTarget(target, visitor);
        statement.values.forEach(expression);
        walk(statement.body, visitor);
    }
  }
}

function walkTarget(target: Target, visitor: Visitor): void {
  if (target.type === "Name") visitor.store(target.name);
  else if (target.type === "TupleTarget") for (const item of target.items) walkTarget(item, visitor);
}

function forEachName(expression: Expression, visit: (name: string) => void): void {
  if (expression.type === "Name") visit(expression.name);
  for (const part of partsOf(expression)) forEachName(part, visit);
}

/** The expressions that a statement evaluates in its own block. */
export function expressionsOf(statement: Statement): readonly Expression[] {
  switch (statement.type) {
    case "Output":
    case "Assign":
      return [statement.node];
    case "If":
      return [statement.test];
    case "For":
      return [statement.iter];
    case "FilterBlock":
      return [statement.filter];
    case "CallBlock":
      return present([statement.call]);
    case "With":
      return statement.values;
    case "Text":
    case "AssignBlock":
    case "Macro":
    case "Break":
    case "Continue":
      return [];
  }
}

/** The direct parts of an expression. */
export function partsOf(expression: Expression): readonly Expression[] {
  switch (expression.type) {
    case "Name":
    case "Const":
    case "Number":
      return [];
    case "List":
    case "Tuple":
      return expression.items;
    case "Dict":
      return expression.items.flatMap(({ key, value }) => [key, value]);
    case "Getattr":
    case "Not":
    case "Neg":
    case "Pos":
      return [expression.node];
    case "Getitem":
      return [expression.node, expression.arg];
    case "Slice":
      return present([expression.node, expression.start, expression.stop, expression.step]);
    case "Call":
    case "Filter":
    case "Test":
      return present([expression.node, ...argumentsOf(expression)]);
    case "And":
    case "Or":
    case "Binary":
      return [expression.left, expression.right];
    case "Concat":
      return expression.nodes;
    case "Compare":
      return [expression.expr, ...expression.ops.map(({ expr }) => expr)];
    case "Condition":
      return present([expression.test, expression.value, expression.otherwise]);
  }
}

function argumentsOf({ args, kwargs, dynArgs, dynKwargs }: Arguments): (Expression | undefined)[] {
  return [...args, ...kwargs.map(({ value }) => value), dynArgs, dynKwargs];
}

function present(expressions: readonly (Expression | undefined)[]): Expression[] {
  return expressions.filter((expression) => expression !== undefined);
}
