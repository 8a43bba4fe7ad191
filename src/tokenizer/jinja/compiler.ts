/** A template's nodes → functions that render it. Names are resolved to slots here, once. */
import { textArgument } from "./arguments.ts";
import type * as ast from "./ast.ts";
import { TemplateError, unsupported } from "./error.ts";
import { FILTER_NAMES, runFilter } from "./filters.ts";
import { GLOBALS, setAttribute } from "./globals.ts";
import { binary } from "./operators.ts";
import type { Runtime } from "./runtime.ts";
import { expressionsOf, partsOf, Routine, reads, Scope, type Variable, writes } from "./scopes.ts";
import { attribute, slice, subscript } from "./subscripts.ts";
import { runTest, TEST_NAMES } from "./tests.ts";
import {
  type Arguments,
  Callable,
  compare,
  contains,
  Dict,
  each,
  equals,
  Float,
  Iter,
  isTrue,
  iterate,
  Loop,
  Namespace,
  numberIn,
  Tuple,
  toText,
  typeOf,
  Undefined,
  type Value,
} from "./values.ts";

/** The memory of one run of a routine. An empty slot is a variable that is not set. */
class Frame {
  readonly slots: (Value | undefined)[] = [];
  readonly outer: Frame | undefined;

  constructor(outer?: Frame) {
    this.outer = outer;
  }
}

interface Context {
  readonly runtime: Runtime;
  readonly variables: ReadonlyMap<string, Value>;
}

type Evaluate = (frame: Frame, context: Context) => Value;
/** How a statement ends: normally, or with a break or continue of the enclosing loop. */
type Ending = undefined | "break" | "continue";
type Execute = (frame: Frame, context: Context) => Ending;
type Store = (value: Value, frame: Frame, context: Context) => void;

/** @throws TemplateError */
export function compile(statements: readonly ast.Statement[]): (context: Context) => void {
  if (reads(statements, "self")) throw unsupported("'self'");
  const routine = new Routine();
  const scope = new Scope(routine);
  scope.statements(statements);
  const run = new Compiler(routine, false).block(statements, scope, false);
  return (context) => {
    run(new Frame(), context);
  };
}

class Compiler {
  readonly #routine: Routine;
  readonly #isInLoop: boolean;

  constructor(routine: Routine, isInLoop: boolean) {
    this.#routine = routine;
    this.#isInLoop = isInLoop;
  }

  /** @param isSoft an unknown filter is an error only if it is used, as in a branch */
  block(statements: readonly ast.Statement[], scope: Scope, isSoft: boolean): Execute {
    const enter = this.#enter(scope);
    const run = this.#sequence(statements, scope, isSoft);
    return (frame, context) => {
      enter(frame, context);
      return run(frame, context);
    };
  }

  #sequence(statements: readonly ast.Statement[], scope: Scope, isSoft: boolean): Execute {
    const steps = statements.map((statement) => this.#statement(statement, scope, isSoft));
    // The most work without loops and calls.
    const cost = statements.reduce((sum, statement) => sum + sizeOf(statement), 1);
    return (frame, context) => {
      context.runtime.spend(cost);
      for (const step of steps) {
        const ending = step(frame, context);
        if (ending !== undefined) return ending;
      }
      return undefined;
    };
  }

  /** Sets the variables of a block to their initial values. */
  #enter(scope: Scope): (frame: Frame, context: Context) => void {
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
      const read = this.#reader(load.from);
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
  #leave(scope: Scope): (frame: Frame) => void {
    const slots = scope.loads.map(([{ slot }]) => slot);
    return (frame) => {
      for (const slot of slots) frame.slots[slot] = undefined;
    };
  }

  #reader({ owner, slot }: Variable): (frame: Frame) => Value | undefined {
    let depth = 0;
    for (let routine: Routine | undefined = this.#routine; routine !== owner; routine = routine.outer!) depth++;
    if (depth === 0) return (frame) => frame.slots[slot];
    if (depth === 1) return (frame) => frame.outer!.slots[slot];
    return (frame) => {
      let at = frame;
      for (let i = 0; i < depth; i++) at = at.outer!;
      return at.slots[slot];
    };
  }

  #statement(statement: ast.Statement, scope: Scope, isSoft: boolean): Execute {
    const { line } = statement;
    const run = this.#unmarked(statement, scope, isSoft);
    return (frame, context) => {
      context.runtime.line = line;
      return run(frame, context);
    };
  }

  #unmarked(statement: ast.Statement, scope: Scope, isSoft: boolean): Execute {
    switch (statement.type) {
      case "Text": {
        const { text } = statement;
        return (_, { runtime }) => void runtime.emit(text);
      }
      case "Output": {
        const evaluate = this.#shown(statement.node, scope, isSoft);
        return (frame, context) => void context.runtime.emit(toText(evaluate(frame, context), context.runtime));
      }
      case "If": {
        const test = this.#expression(statement.test, scope, true);
        const body = this.#sequence(statement.body, scope, true);
        const otherwise = this.#sequence(statement.otherwise, scope, true);
        return (frame, context) => (isTrue(test(frame, context)) ? body : otherwise)(frame, context);
      }
      case "For":
        return this.#for(statement, scope, isSoft);
      case "Assign": {
        const evaluate = this.#expression(statement.node, scope, isSoft);
        const store = this.#target(statement.target, scope);
        const check = this.#namespaceCheck(statement.target, scope);
        return (frame, context) => {
          check(frame);
          store(evaluate(frame, context), frame, context);
          return undefined;
        };
      }
      case "AssignBlock":
        return this.#assignBlock(statement, scope);
      case "FilterBlock": {
        const inner = new Scope(this.#routine, scope);
        inner.statements(statement.body);
        inner.expression(statement.filter);
        const body = this.block(statement.body, inner, false);
        const filter = this.#filter(statement.filter, inner, false);
        const leave = this.#leave(inner);
        return (frame, context) => {
          const { ending, text } = captured(body, frame, context);
          if (ending !== undefined) return ending;
          emitText(filter(text, frame, context), context);
          leave(frame);
          return undefined;
        };
      }
      case "With":
        return this.#with(statement, scope, isSoft);
      case "Macro": {
        const create = this.#macro(statement, statement.name, scope);
        const store = this.#target({ type: "Name", name: statement.name, line: statement.line }, scope);
        return (frame, context) => {
          store(create(frame, context), frame, context);
          return undefined;
        };
      }
      case "CallBlock":
        return this.#callBlock(statement, scope, isSoft);
      case "Break":
      case "Continue": {
        const tag = statement.type === "Break" ? "break" : "continue";
        if (!this.#isInLoop) throw new TemplateError(`{% ${tag} %} stands outside of a loop`, statement.line);
        return () => tag;
      }
    }
  }

  #for(statement: ast.For, scope: Scope, isSoft: boolean): Execute {
    const { body, otherwise, isRecursive, target } = statement;
    if (writes([statement], "loop")) throw new TemplateError("loop cannot be assigned to in a loop", statement.line);
    const routine = isRecursive ? new Routine(this.#routine) : this.#routine;
    const compiler = new Compiler(routine, true);
    const inner = new Scope(routine, scope);
    const isExtended = isRecursive || reads(body, "loop");
    const loopSlot = isExtended ? inner.parameter("loop").slot : undefined;
    inner.target(target, true);
    inner.statements(body);
    const after = new Scope(routine, scope);
    after.statements(otherwise);

    const store = compiler.#target(target, inner);
    const runBody = compiler.block(body, inner, false);
    const leave = compiler.#leave(inner);
    const elseCompiler = new Compiler(routine, this.#isInLoop && !isRecursive);
    const runElse = otherwise.length === 0 ? undefined : elseCompiler.block(otherwise, after, false);
    const filter = statement.test && this.#loopFilter(statement, scope);
    const iter = this.#expression(statement.iter, scope, isSoft);

    const run = (iterable: Value, frame: Frame, context: Context, depth0: number): Ending => {
      const { runtime } = context;
      const items = filter ? filter(iterable, isRecursive ? frame.outer! : frame, context) : iterable;
      const recurse = isRecursive
        ? (deeper: Value, depth: number) => {
            const own = new Frame(frame.outer!);
            return runtime.capture(() => void run(deeper, own, context, depth));
          }
        : undefined;
      const loop = isExtended ? new Loop(items, depth0, recurse) : undefined;
      const iterator = loop ? undefined : iterate(items);
      // jinja2 also takes a loop for empty if none of its rounds ran to the end.
      let isEmpty = true;
      for (;;) {
        const item = loop ? loop.next() : nextOf(iterator!);
        if (item === undefined) break;
        if (loop) frame.slots[loopSlot!] = loop;
        store(item, frame, context);
        const ending = runBody(frame, context);
        if (ending === "break") break;
        if (ending === undefined) isEmpty = false;
      }
      leave(frame);
      return isEmpty ? runElse?.(frame, context) : undefined;
    };
    if (!isRecursive) return (frame, context) => run(iter(frame, context), frame, context, 0);
    return (frame, context) => {
      const iterable = iter(frame, context);
      const text = context.runtime.capture(() => void run(iterable, new Frame(frame), context, 0));
      context.runtime.emit(text);
      return undefined;
    };
  }

  /** `for … if …`: the items that pass, tested one by one as the loop reaches them. */
  #loopFilter({ target, test }: ast.For, scope: Scope): (items: Value, frame: Frame, context: Context) => Iter {
    const routine = new Routine(this.#routine);
    const compiler = new Compiler(routine, false);
    const inner = new Scope(routine, scope);
    inner.target(target, true);
    inner.expression(test!);
    const enter = compiler.#enter(inner);
    const store = compiler.#target(target, inner);
    const evaluate = compiler.#expression(test!, inner, false);
    const cost = sizeOfExpression(test!);
    function* kept(items: Value, frame: Frame, context: Context): Generator<Value> {
      const own = new Frame(frame);
      enter(own, context);
      for (const item of each(items, context.runtime)) {
        context.runtime.spend(cost);
        store(item, own, context);
        if (isTrue(evaluate(own, context))) yield item;
      }
    }
    return (items, frame, context) => new Iter(kept(items, frame, context));
  }

  #assignBlock(statement: ast.Statement & { type: "AssignBlock" }, scope: Scope): Execute {
    const inner = new Scope(this.#routine, scope);
    inner.statements(statement.body);
    const body = this.block(statement.body, inner, false);
    const filter = statement.filter && this.#filter(statement.filter, inner, false);
    const store = this.#target(statement.target, scope);
    const check = this.#namespaceCheck(statement.target, scope);
    const leave = this.#leave(inner);
    return (frame, context) => {
      const { ending, text } = captured(body, frame, context);
      if (ending !== undefined) return ending;
      check(frame);
      store(filter ? filter(text, frame, context) : text, frame, context);
      leave(frame);
      return undefined;
    };
  }

  #with(statement: ast.Statement & { type: "With" }, scope: Scope, isSoft: boolean): Execute {
    const { targets, values, body } = statement;
    const inner = new Scope(this.#routine, scope);
    for (const target of targets) inner.target(target, true);
    inner.statements(body);
    const evaluate = values.map((value) => this.#expression(value, scope, isSoft));
    const stores = targets.map((target) => this.#target(target, inner));
    const enter = this.#enter(inner);
    const run = this.#sequence(body, inner, false);
    const leave = this.#leave(inner);
    return (frame, context) => {
      enter(frame, context);
      for (const [i, store] of stores.entries()) store(evaluate[i]!(frame, context), frame, context);
      const ending = run(frame, context);
      leave(frame);
      return ending;
    };
  }

  #callBlock(statement: ast.CallBlock, scope: Scope, isSoft: boolean): Execute {
    const { call } = statement;
    const create = this.#macro(statement, "", scope);
    const callee = call && this.#expression(call.node, scope, isSoft);
    const given = call && this.#arguments(call, scope, isSoft);
    return (frame, context) => {
      const caller = create(frame, context);
      if (callee === undefined || given === undefined) {
        emitText(caller.call(NO_ARGUMENTS, context.runtime), context);
        return undefined;
      }
      const called = callee(frame, context);
      const { args, kwargs } = given(frame, context);
      if (kwargs.has("caller")) throw new TemplateError("a call block gives the argument 'caller'");
      const all = { args, kwargs: new Map(kwargs).set("caller", caller) };
      emitText(callValue(called, all, context.runtime), context);
      return undefined;
    };
  }

  #macro(
    macro: ast.Signature & { readonly body: readonly ast.Statement[]; readonly line: number },
    name: string,
    scope: Scope,
  ): (frame: Frame, context: Context) => Callable {
    const { args: parameters, defaults, body } = macro;
    const routine = new Routine(this.#routine);
    const compiler = new Compiler(routine, false);
    const inner = new Scope(routine, scope);
    const slots = parameters.map((parameter) => inner.parameter(parameter.name).slot);
    for (const value of defaults) inner.expression(value);
    inner.statements(body);
    const special = (own: string) => {
      const isSpecial = reads(body, own) && !parameters.some((parameter) => parameter.name === own);
      return isSpecial ? inner.parameter(own).slot : undefined;
    };
    if (parameters.some((parameter) => parameter.name === "caller")) {
      throw unsupported("a macro's own parameter 'caller'");
    }
    const [callerSlot, kwargsSlot, varargsSlot] = [special("caller"), special("kwargs"), special("varargs")];
    // Resolved again, since in the body these are parameters.
    inner.statements(body);
    const fallbacks = defaults.map((value) => compiler.#expression(value, inner, false));
    const run = compiler.block(body, inner, false);
    const enter = compiler.#enter(inner);
    const numWithout = parameters.length - defaults.length;

    return (frame, context) =>
      new Callable("macro", name, ({ args, kwargs }, runtime) => {
        const own = new Frame(frame);
        const rest = new Map(kwargs);
        parameters.forEach((parameter, i) => {
          own.slots[slots[i]!] = i < args.length ? args[i] : rest.get(parameter.name);
          if (i >= args.length) rest.delete(parameter.name);
        });
        if (callerSlot !== undefined) {
          own.slots[callerSlot] = rest.get("caller") ?? new Undefined("No caller defined");
          rest.delete("caller");
        }
        if (kwargsSlot !== undefined) own.slots[kwargsSlot] = new Dict(rest);
        else if (rest.size > 0) {
          throw new TemplateError(`macro '${name}' takes no keyword argument '${[...rest.keys()][0]}'`);
        }
        if (varargsSlot !== undefined) own.slots[varargsSlot] = new Tuple(args.slice(parameters.length));
        else if (args.length > parameters.length) {
          throw new TemplateError(`macro '${name}' takes not more than ${parameters.length} argument(s)`);
        }
        const { line } = runtime;
        const text = runtime.capture(() => {
          enter(own, context);
          parameters.forEach((parameter, i) => {
            const slot = slots[i]!;
            if (own.slots[slot] !== undefined) return;
            const fallback = fallbacks[i - numWithout];
            own.slots[slot] = fallback
              ? fallback(own, context)
              : new Undefined(`parameter '${parameter.name}' was not provided`);
          });
          run(own, context);
        });
        runtime.line = line;
        return text;
      });
  }

  #namespaceCheck(target: ast.Target, scope: Scope): (frame: Frame) => void {
    if (target.type !== "NamespaceTarget") return () => {};
    const read = this.#reader(scope.find(target.name)!);
    return (frame) => {
      if (!(read(frame) instanceof Namespace)) {
        throw new TemplateError("cannot assign attribute on non-namespace object");
      }
    };
  }

  #target(target: ast.Target, scope: Scope): Store {
    if (target.type === "Name") {
      const { slot } = scope.find(target.name)!;
      return (value, frame) => {
        frame.slots[slot] = value;
      };
    }
    if (target.type === "NamespaceTarget") {
      const read = this.#reader(scope.find(target.name)!);
      return (value, frame) => setAttribute(read(frame) as Namespace, target.attr, value);
    }
    const stores = target.items.map((item) => this.#target(item, scope));
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

  /** For values that are only shown, `safe` changes nothing, since nothing is escaped. */
  #shown(expression: ast.Expression, scope: Scope, isSoft: boolean): Evaluate {
    const isMark = expression.type === "Filter" && expression.name === "safe" && expression.node !== undefined;
    if (isMark && expression.args.length + expression.kwargs.length === 0) {
      return this.#expression(expression.node!, scope, isSoft);
    }
    return this.#expression(expression, scope, isSoft);
  }

  #expression(expression: ast.Expression, scope: Scope, isSoft: boolean): Evaluate {
    const of = (part: ast.Expression) => this.#expression(part, scope, isSoft);
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
        const read = this.#reader(variable);
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
        const given = this.#arguments(expression, scope, isSoft);
        const { line } = expression;
        return (frame, context) => {
          const called = node(frame, context);
          const all = given(frame, context);
          context.runtime.line = line;
          return callValue(called, all, context.runtime);
        };
      }
      case "Filter": {
        const filter = this.#filter(expression, scope, isSoft);
        const node = of(expression.node!);
        return (frame, context) => filter(node(frame, context), frame, context);
      }
      case "Test":
        return this.#test(expression, scope, isSoft);
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
        const goesOn = expression.type === "And";
        return (frame, context) => {
          const value = left(frame, context);
          return isTrue(value) === goesOn ? right(frame, context) : value;
        };
      }
      case "Binary": {
        const [left, right] = [of(expression.left), of(expression.right)];
        const { operator } = expression;
        return (frame, context) => binary(operator, left(frame, context), right(frame, context), context.runtime);
      }
      case "Concat": {
        const nodes = expression.nodes.map((node) => this.#shown(node, scope, isSoft));
        return (frame, context) => {
          const { runtime } = context;
          const values = nodes.map((node) => node(frame, context));
          return runtime.made(values.map((value) => toText(value, runtime)).join(""));
        };
      }
      case "Compare":
        return this.#compare(expression, scope, isSoft);
      case "Condition": {
        const soft = (part: ast.Expression) => this.#expression(part, scope, true);
        const [test, value] = [soft(expression.test), soft(expression.value)];
        const missing = new Undefined("the inline if-expression evaluated to false and no else section was defined.");
        const otherwise: Evaluate = expression.otherwise ? soft(expression.otherwise) : () => missing;
        return (frame, context) => (isTrue(test(frame, context)) ? value : otherwise)(frame, context);
      }
    }
  }

  #compare(expression: ast.Expression & { type: "Compare" }, scope: Scope, isSoft: boolean): Evaluate {
    const first = this.#expression(expression.expr, scope, isSoft);
    const ops = expression.ops.map(({ operator, expr }) => ({
      holds: RELATIONS[operator],
      evaluate: this.#expression(expr, scope, isSoft),
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

  #filter(filter: ast.Filter, scope: Scope, isSoft: boolean): (value: Value, frame: Frame, context: Context) => Value {
    const { name, node, line } = filter;
    if (!isSoft && !FILTER_NAMES.has(name)) throw new TemplateError(`No filter named '${name}'.`, line);
    const given = this.#arguments(filter, scope, isSoft);
    const apply = (value: Value, frame: Frame, context: Context) => {
      const all = given(frame, context);
      context.runtime.line = line;
      return runFilter(name, value, all, context.runtime);
    };
    // A chain of filters over a block: the innermost gets the block's text.
    if (node?.type !== "Filter" || !isOverBlock(node)) return apply;
    const inner = this.#filter(node, scope, isSoft);
    return (value, frame, context) => apply(inner(value, frame, context), frame, context);
  }

  #test(expression: ast.Expression & { type: "Test" }, scope: Scope, isSoft: boolean): Evaluate {
    const { name, line } = expression;
    if (!isSoft && !TEST_NAMES.has(name)) throw new TemplateError(`No test named '${name}'.`, line);
    const node = this.#expression(expression.node, scope, isSoft);
    const given = this.#arguments(expression, scope, isSoft);
    return (frame, context) => {
      const value = node(frame, context);
      const all = given(frame, context);
      context.runtime.line = line;
      return runTest(name, value, all, context.runtime);
    };
  }

  #arguments(given: ast.Arguments, scope: Scope, isSoft: boolean): (frame: Frame, context: Context) => Arguments {
    const of = (part: ast.Expression) => this.#expression(part, scope, isSoft);
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
}

const NO_ARGUMENTS: Arguments = { args: [], kwargs: new Map() };

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

function nextOf(iterator: Iterator<Value>): Value | undefined {
  const next = iterator.next();
  return next.done ? undefined : next.value;
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

function captured(run: Execute, frame: Frame, context: Context): { ending: Ending; text: string } {
  let ending: Ending;
  const text = context.runtime.capture(() => {
    ending = run(frame, context);
  });
  return { ending, text };
}

/** Emits the text that replaces a block. Unlike a shown value it must be a string already. */
function emitText(value: Value, { runtime }: Context): void {
  runtime.emit(textArgument(value, "what a block is replaced by"));
}

function callValue(called: Value, given: Arguments, runtime: Runtime): Value {
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

function sizeOfExpression(expression: ast.Expression): number {
  return partsOf(expression).reduce((sum, part) => sum + sizeOfExpression(part), 1);
}

/** The work of a statement, without that of its blocks. */
function sizeOf(statement: ast.Statement): number {
  return expressionsOf(statement).reduce((sum, part) => sum + sizeOfExpression(part), 1);
}
