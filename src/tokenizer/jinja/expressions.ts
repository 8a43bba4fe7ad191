/**
 * A template's expressions → functions that evaluate them. Names are resolved to slots here, once.
 * `isSoft`: an unknown filter or test is an error only if it is used, as in a branch.
 */
import { textArgument } from "./arguments.ts";
import type * as ast from "./ast.ts";
import { TemplateError, unsupported } from "./error.ts";
import { FILTER_NAMES, runFilter } from "./filters.ts";
import { binary, compare, contains } from "./operators.ts";
import { toText } from "./represent.ts";
import type { Runtime } from "./runtime.ts";
import type { Scope } from "./scopes.ts";
import { attribute, slice, subscript } from "./subscripts.ts";
import { runTest, TEST_NAMES } from "./tests.ts";
import {
  type Arguments,
  Callable,
  Dict,
  equals,
  Float,
  isTrue,
  iterate,
  Loop,
  numberIn,
  Tuple,
  typeOf,
  Undefined,
  type Value,
} from "./values.ts";
import { type Context, type Evaluate, type Frame, reader } from "./variables.ts";

/** For output values: `safe` changes nothing, since nothing is escaped. */
export function compileShown(expression: ast.Expression, scope: Scope, isSoft: boolean): Evaluate {
  const isMark = expression.type === "Filter" && expression.name === "safe" && expression.node !== undefined;
  if (isMark && expression.args.length + expression.kwargs.length === 0) {
    return compileExpression(expression.node!, scope, isSoft);
  }
  return compileExpression(expression, scope, isSoft);
}

export function compileExpression(expression: ast.Expression, scope: Scope, isSoft: boolean): Evaluate {
  const of = (part: ast.Expression) => compileExpression(part, scope, isSoft);
  switch (expression.type) {
    case "Const": {
      const { value } = expression;
      return () => value;
    }
    case "Number": {
      const value = expression.isFloat ? new Float(expression.value) : expression.value;
      return () => value;
    }
    case "Name": {
      const { name } = expression;
      const variable = scope.find(name);
      if (variable === undefined) throw unsupported(`the name '${name}' where it stands`);
      const read = reader(variable, scope);
      const missing = new Undefined(`'${name}' is undefined`);
      return (frame) => {
        const value = read(frame);
        return value === undefined ? missing : value;
      };
    }
    case "List": {
      const items = expression.items.map(of);
      return (frame, context) => items.map((item) => item(frame, context));
    }
    case "Tuple": {
      const items = expression.items.map(of);
      return (frame, context) => new Tuple(items.map((item) => item(frame, context)));
    }
    case "Dict": {
      const items = expression.items.map(({ key, value }) => [of(key), of(value)] as const);
      return (frame, context) =>
        new Dict(items.map(([key, value]) => [key(frame, context), value(frame, context)] as const));
    }
    case "Getattr": {
      const node = of(expression.node);
      const { attr } = expression;
      return (frame, context) => attribute(node(frame, context), attr, context.runtime);
    }
    case "Getitem": {
      const [node, arg] = [of(expression.node), of(expression.arg)];
      return (frame, context) => subscript(node(frame, context), arg(frame, context), context.runtime);
    }
    case "Slice": {
      const node = of(expression.node);
      const [start, stop, step] = [expression.start, expression.stop, expression.step].map(
        (part): Evaluate => (part ? of(part) : () => null),
      );
      return (f, c) => slice(node(f, c), start!(f, c), stop!(f, c), step!(f, c), c.runtime);
    }
    case "Call": {
      const node = of(expression.node);
      const given = compileArguments(expression, scope, isSoft);
      const { line } = expression;
      return (frame, context) => {
        const called = node(frame, context);
        const all = given(frame, context);
        context.runtime.line = line;
        return callValue(called, all, context.runtime);
      };
    }
    case "Filter": {
      const filter = compileFilter(expression, scope, isSoft);
      const node = of(expression.node!);
      return (frame, context) => filter(node(frame, context), frame, context);
    }
    case "Test":
      return compileTest(expression, scope, isSoft);
    case "Not": {
      const node = of(expression.node);
      return (frame, context) => !isTrue(node(frame, context));
    }
    case "Neg":
    case "Pos": {
      const node = of(expression.node);
      const sign = expression.type === "Neg" ? -1 : 1;
      return (frame, context) => signed(node(frame, context), sign);
    }
    case "And":
    case "Or": {
      const [left, right] = [of(expression.left), of(expression.right)];
      const continues = expression.type === "And";
      return (frame, context) => {
        const value = left(frame, context);
        return isTrue(value) === continues ? right(frame, context) : value;
      };
    }
    case "Binary": {
      const [left, right] = [of(expression.left), of(expression.right)];
      const { operator } = expression;
      return (frame, context) => binary(operator, left(frame, context), right(frame, context), context.runtime);
    }
    case "Concat": {
      const nodes = expression.nodes.map((node) => compileShown(node, scope, isSoft));
      return (frame, context) => {
        const { runtime } = context;
        const values = nodes.map((node) => node(frame, context));
        return runtime.made(values.map((value) => toText(value, runtime)).join(""));
      };
    }
    case "Compare":
      return compileComparison(expression, scope, isSoft);
    case "Condition": {
      const soft = (part: ast.Expression) => compileExpression(part, scope, true);
      const [test, value] = [soft(expression.test), soft(expression.value)];
      const missing = new Undefined("the inline if-expression evaluated to false and no else section was defined.");
      const otherwise: Evaluate = expression.otherwise ? soft(expression.otherwise) : () => missing;
      return (frame, context) => (isTrue(test(frame, context)) ? value : otherwise)(frame, context);
    }
  }
}

function compileComparison(expression: ast.Expression & { type: "Compare" }, scope: Scope, isSoft: boolean): Evaluate {
  const first = compileExpression(expression.expr, scope, isSoft);
  const ops = expression.ops.map(({ operator, expr }) => ({
    holds: RELATIONS[operator],
    evaluate: compileExpression(expr, scope, isSoft),
  }));
  return (frame, context) => {
    let left = first(frame, context);
    for (const { holds, evaluate } of ops) {
      const right = evaluate(frame, context);
      if (!holds(left, right, context.runtime)) return false;
      left = right;
    }
    return true;
  };
}

export function compileFilter(
  filter: ast.Filter,
  scope: Scope,
  isSoft: boolean,
): (value: Value, frame: Frame, context: Context) => Value {
  const { name, node, line } = filter;
  if (!isSoft && !FILTER_NAMES.has(name)) throw new TemplateError(`No filter named '${name}'.`, line);
  const given = compileArguments(filter, scope, isSoft);
  const apply = (value: Value, frame: Frame, context: Context) => {
    const all = given(frame, context);
    context.runtime.line = line;
    return runFilter(name, value, all, context.runtime);
  };
  // A chain of filters over a block: the innermost gets the block's text.
  if (node?.type !== "Filter" || !isOverBlock(node)) return apply;
  const inner = compileFilter(node, scope, isSoft);
  return (value, frame, context) => apply(inner(value, frame, context), frame, context);
}

function compileTest(expression: ast.Expression & { type: "Test" }, scope: Scope, isSoft: boolean): Evaluate {
  const { name, line } = expression;
  if (!isSoft && !TEST_NAMES.has(name)) throw new TemplateError(`No test named '${name}'.`, line);
  const node = compileExpression(expression.node, scope, isSoft);
  const given = compileArguments(expression, scope, isSoft);
  return (frame, context) => {
    const value = node(frame, context);
    const all = given(frame, context);
    context.runtime.line = line;
    return runTest(name, value, all, context.runtime);
  };
}

export function compileArguments(
  given: ast.Arguments,
  scope: Scope,
  isSoft: boolean,
): (frame: Frame, context: Context) => Arguments {
  const of = (part: ast.Expression) => compileExpression(part, scope, isSoft);
  const args = given.args.map(of);
  const kwargs = given.kwargs.map(({ key, value }) => [key, of(value)] as const);
  const more = given.dynArgs && of(given.dynArgs);
  const moreKwargs = given.dynKwargs && of(given.dynKwargs);
  if (args.length + kwargs.length === 0 && !more && !moreKwargs) return () => NO_ARGUMENTS;
  return (frame, context) => {
    const values = args.map((arg) => arg(frame, context));
    const named = new Map(kwargs.map(([key, value]) => [key, value(frame, context)]));
    if (more) values.push(...listOf(more(frame, context)));
    if (moreKwargs) addNamed(named, moreKwargs(frame, context));
    return { args: values, kwargs: named };
  };
}

export const NO_ARGUMENTS: Arguments = { args: [], kwargs: new Map() };

const RELATIONS: Readonly<Record<ast.ComparisonOperator, (a: Value, b: Value, runtime: Runtime) => boolean>> = {
  "==": equals,
  "!=": (a, b, runtime) => !equals(a, b, runtime),
  "<": (a, b, runtime) => compare(a, b, runtime) < 0,
  "<=": (a, b, runtime) => compare(a, b, runtime) <= 0,
  ">": (a, b, runtime) => compare(a, b, runtime) > 0,
  ">=": (a, b, runtime) => compare(a, b, runtime) >= 0,
  in: (a, b, runtime) => contains(b, a, runtime),
  "not in": (a, b, runtime) => !contains(b, a, runtime),
};

function isOverBlock({ node }: ast.Filter): boolean {
  return node === undefined || (node.type === "Filter" && isOverBlock(node));
}

function listOf(value: Value): Value[] {
  return [...{ [Symbol.iterator]: () => iterate(value) }];
}

function addNamed(named: Map<string, Value>, given: Value): void {
  if (!(given instanceof Dict)) throw new TemplateError(`** takes a mapping, not ${typeOf(given)}`);
  for (const [key, value] of given.entries()) {
    const name = textArgument(key, "the name of an argument");
    if (named.has(name)) throw new TemplateError(`got multiple values for keyword argument '${name}'`);
    named.set(name, value);
  }
}

export function callValue(called: Value, given: Arguments, runtime: Runtime): Value {
  if (called instanceof Callable) return called.call(given, runtime);
  if (called instanceof Undefined) throw new TemplateError(called.message);
  if (!(called instanceof Loop)) throw new TemplateError(`'${typeOf(called)}' object is not callable`);
  const [iterable, ...others] = given.args;
  if (called.recurse === undefined) {
    throw new TemplateError("The loop must have the 'recursive' marker to be called recursively.");
  }
  if (iterable === undefined || others.length + given.kwargs.size > 0)
    throw new TemplateError("loop takes one argument");
  return called.recurse(iterable, called.depth0 + 1);
}

function signed(value: Value, sign: 1 | -1): Value {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  const number = numberIn(value);
  if (number === undefined)
    throw new TemplateError(`bad operand type for unary ${sign < 0 ? "-" : "+"}: '${typeOf(value)}'`);
  if (value instanceof Float) return new Float(sign * number);
  return sign * number || 0;
}
