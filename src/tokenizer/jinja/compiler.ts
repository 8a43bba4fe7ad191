/**
 * A template's statements → functions that render it. Expressions are compiled in `expressions.ts`.
 */
import { textArgument } from "./arguments.ts";
import type * as ast from "./ast.ts";
import { TemplateError, unsupported } from "./error.ts";
import {
  callValue,
  compileArguments,
  compileExpression,
  compileFilter,
  compileShown,
  NO_ARGUMENTS,
} from "./expressions.ts";
import { toText } from "./represent.ts";
import { Routine, Scope } from "./scopes.ts";
import { Callable, Dict, each, Iter, isTrue, iterate, Loop, Tuple, Undefined, type Value } from "./values.ts";
import { assignment, type Context, enter, Frame, leave, namespaceCheck, nextOf } from "./variables.ts";
import { expressionsOf, partsOf, reads, writes } from "./walk.ts";

/** How a statement ends: normally, or by a break or continue of the enclosing loop. */
type Ending = undefined | "break" | "continue";
type Execute = (frame: Frame, context: Context) => Ending;

/** The surroundings of a statement. */
interface Place {
  readonly scope: Scope;
  /** An unknown filter is an error only if it is used, as in a branch. */
  readonly isSoft: boolean;
  readonly isInLoop: boolean;
}

/** @throws TemplateError */
export function compile(statements: readonly ast.Statement[]): (context: Context) => void {
  if (reads(statements, "self")) throw unsupported("'self'");
  const routine = new Routine();
  const scope = new Scope(routine);
  scope.statements(statements);
  const run = block(statements, { scope, isSoft: false, isInLoop: false });
  return (context) => {
    run(new Frame(), context);
  };
}

function block(statements: readonly ast.Statement[], place: Place): Execute {
  const prepare = enter(place.scope);
  const run = sequence(statements, place);
  return (frame, context) => {
    prepare(frame, context);
    return run(frame, context);
  };
}

function sequence(statements: readonly ast.Statement[], place: Place): Execute {
  const steps = statements.map((statement) => compileStatement(statement, place));
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

function compileStatement(statement: ast.Statement, place: Place): Execute {
  const { line } = statement;
  const run = compileUnmarked(statement, place);
  return (frame, context) => {
    context.runtime.line = line;
    return run(frame, context);
  };
}

/** Without its line. */
function compileUnmarked(statement: ast.Statement, place: Place): Execute {
  const { scope, isSoft } = place;
  switch (statement.type) {
    case "Text": {
      const { text } = statement;
      return (_, { runtime }) => void runtime.emit(text);
    }
    case "Output": {
      const evaluate = compileShown(statement.node, scope, isSoft);
      return (frame, context) => void context.runtime.emit(toText(evaluate(frame, context), context.runtime));
    }
    case "If": {
      const test = compileExpression(statement.test, scope, true);
      const body = sequence(statement.body, { ...place, isSoft: true });
      const otherwise = sequence(statement.otherwise, { ...place, isSoft: true });
      return (frame, context) => (isTrue(test(frame, context)) ? body : otherwise)(frame, context);
    }
    case "For":
      return compileFor(statement, place);
    case "Assign": {
      const evaluate = compileExpression(statement.node, scope, isSoft);
      const store = assignment(statement.target, scope);
      const check = namespaceCheck(statement.target, scope);
      return (frame, context) => {
        check(frame);
        store(evaluate(frame, context), frame, context);
        return undefined;
      };
    }
    case "AssignBlock":
      return compileAssignBlock(statement, place);
    case "FilterBlock": {
      const inner = new Scope(scope.routine, scope);
      inner.statements(statement.body);
      inner.expression(statement.filter);
      const body = block(statement.body, { ...place, scope: inner, isSoft: false });
      const filter = compileFilter(statement.filter, inner, false);
      const clear = leave(inner);
      return (frame, context) => {
        const { ending, text } = captured(body, frame, context);
        if (ending !== undefined) return ending;
        emitText(filter(text, frame, context), context);
        clear(frame);
        return undefined;
      };
    }
    case "With":
      return compileWith(statement, place);
    case "Macro": {
      const create = compileMacro(statement, statement.name, scope);
      const store = assignment({ type: "Name", name: statement.name, line: statement.line }, scope);
      return (frame, context) => {
        store(create(frame, context), frame, context);
        return undefined;
      };
    }
    case "CallBlock":
      return compileCallBlock(statement, place);
    case "Break":
    case "Continue": {
      const tag = statement.type === "Break" ? "break" : "continue";
      if (!place.isInLoop) throw new TemplateError(`{% ${tag} %} stands outside of a loop`, statement.line);
      return () => tag;
    }
  }
}

function compileFor(statement: ast.For, { scope, isSoft, isInLoop }: Place): Execute {
  const { body, otherwise, isRecursive, target } = statement;
  if (writes([statement], "loop")) throw new TemplateError("loop cannot be assigned to in a loop", statement.line);
  const routine = isRecursive ? new Routine(scope.routine) : scope.routine;
  const inner = new Scope(routine, scope);
  const isExtended = isRecursive || reads(body, "loop");
  const loopSlot = isExtended ? inner.parameter("loop").slot : undefined;
  inner.target(target, true);
  inner.statements(body);
  const after = new Scope(routine, scope);
  after.statements(otherwise);

  const store = assignment(target, inner);
  const runBody = block(body, { scope: inner, isSoft: false, isInLoop: true });
  const clear = leave(inner);
  const place = { scope: after, isSoft: false, isInLoop: isInLoop && !isRecursive };
  const runElse = otherwise.length === 0 ? undefined : block(otherwise, place);
  const filter = statement.test && loopFilter(statement, scope);
  const iter = compileExpression(statement.iter, scope, isSoft);

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
    // jinja2 also treats a loop as empty if no round ran to its end.
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
    clear(frame);
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
function loopFilter({ target, test }: ast.For, scope: Scope): (items: Value, frame: Frame, context: Context) => Iter {
  const routine = new Routine(scope.routine);
  const inner = new Scope(routine, scope);
  inner.target(target, true);
  inner.expression(test!);
  const prepare = enter(inner);
  const store = assignment(target, inner);
  const evaluate = compileExpression(test!, inner, false);
  const cost = sizeOfExpression(test!);
  function* passing(items: Value, frame: Frame, context: Context): Generator<Value> {
    const own = new Frame(frame);
    prepare(own, context);
    for (const item of each(items, context.runtime)) {
      context.runtime.spend(cost);
      store(item, own, context);
      if (isTrue(evaluate(own, context))) yield item;
    }
  }
  return (items, frame, context) => new Iter(passing(items, frame, context));
}

function compileAssignBlock(statement: ast.Statement & { type: "AssignBlock" }, place: Place): Execute {
  const { scope } = place;
  const inner = new Scope(scope.routine, scope);
  inner.statements(statement.body);
  const body = block(statement.body, { ...place, scope: inner, isSoft: false });
  const filter = statement.filter && compileFilter(statement.filter, inner, false);
  const store = assignment(statement.target, scope);
  const check = namespaceCheck(statement.target, scope);
  const clear = leave(inner);
  return (frame, context) => {
    const { ending, text } = captured(body, frame, context);
    if (ending !== undefined) return ending;
    check(frame);
    store(filter ? filter(text, frame, context) : text, frame, context);
    clear(frame);
    return undefined;
  };
}

function compileWith(statement: ast.Statement & { type: "With" }, place: Place): Execute {
  const { scope, isSoft } = place;
  const { targets, values, body } = statement;
  const inner = new Scope(scope.routine, scope);
  for (const target of targets) inner.target(target, true);
  inner.statements(body);
  const evaluate = values.map((value) => compileExpression(value, scope, isSoft));
  const stores = targets.map((target) => assignment(target, inner));
  const prepare = enter(inner);
  const run = sequence(body, { ...place, scope: inner, isSoft: false });
  const clear = leave(inner);
  return (frame, context) => {
    prepare(frame, context);
    for (const [i, store] of stores.entries()) store(evaluate[i]!(frame, context), frame, context);
    const ending = run(frame, context);
    clear(frame);
    return ending;
  };
}

function compileCallBlock(statement: ast.CallBlock, { scope, isSoft }: Place): Execute {
  const { call } = statement;
  const create = compileMacro(statement, "", scope);
  const callee = call && compileExpression(call.node, scope, isSoft);
  const given = call && compileArguments(call, scope, isSoft);
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

function compileMacro(
  macro: ast.Signature & { readonly body: readonly ast.Statement[]; readonly line: number },
  name: string,
  scope: Scope,
): (frame: Frame, context: Context) => Callable {
  const { args: parameters, defaults, body } = macro;
  const routine = new Routine(scope.routine);
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
  // Resolved again, since these are parameters in the body.
  inner.statements(body);
  const fallbacks = defaults.map((value) => compileExpression(value, inner, false));
  const run = block(body, { scope: inner, isSoft: false, isInLoop: false });
  const prepare = enter(inner);
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
        prepare(own, context);
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

function captured(run: Execute, frame: Frame, context: Context): { ending: Ending; text: string } {
  let ending: Ending;
  const text = context.runtime.capture(() => {
    ending = run(frame, context);
  });
  return { ending, text };
}

/** Emits the text that replaces a block. Unlike an output value it must be a string. */
function emitText(value: Value, { runtime }: Context): void {
  runtime.emit(textArgument(value, "what a block is replaced by"));
}

function sizeOfExpression(expression: ast.Expression): number {
  return partsOf(expression).reduce((sum, part) => sum + sizeOfExpression(part), 1);
}

/** The work of a statement, without that of its blocks. */
function sizeOf(statement: ast.Statement): number {
  return expressionsOf(statement).reduce((sum, part) => sum + sizeOfExpression(part), 1);
}
