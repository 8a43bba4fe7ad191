/**
 * Walks over a template's nodes: which names they read and set, and which expressions they are made
 * of.
 */
import type { Arguments, Expression, Statement, Target } from "./ast.ts";

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

/** Names that an expression reads. */
export function forEachName(expression: Expression, visit: (name: string) => void): void {
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
