/**
 * Templates that render each message by itself: their text is the beginning, each message's own
 * text, and the end. The last messages of such a conversation can be rendered without the others.
 * Decided by the template's syntax, so that it holds for all messages; unknown constructs do not
 * qualify.
 */
import type { Expression, For, Statement, Target } from "./jinja/ast.ts";
import type { Template } from "./jinja/template.ts";
import { partsOf as expressionsIn } from "./jinja/walk.ts";

export interface TemplateParts {
  /** The number of the template's statements up to the last message. */
  readonly numStatements: number;
  /** It may render the first message differently, or read its role. */
  readonly knowsFirst: boolean;
}

/** Methods without effects. Of the functions only `raise_exception` always does the same. */
const METHODS = new Set(["strip", "lstrip", "rstrip", "startswith", "endswith", "split", "replace", "upper", "lower"]);
/** Their results can be iterated once only: the next message would find nothing. */
const ONE_TIME_FILTERS = new Set([
  ...["map", "select", "reject", "selectattr", "rejectattr", "unique", "reverse", "items"],
]);
const GENERATION = "add_generation_prompt";

/**
 * @returns undefined if a message's text may depend on others, on their number, or on what follows
 */
export function partsOf({ statements }: Pick<Template, "statements">): TemplateParts | undefined {
  const at = statements.findIndex(isMessageLoop);
  if (at === -1) return undefined;
  const loop = statements[at] as For;
  const before = statements.slice(0, at).filter((statement) => !isDefaultOfGeneration(statement));
  const [beginning, each, end] = [new Reading("around"), new Reading("each"), new Reading("around")];
  const isApart =
    beginning.accepts(before) &&
    loop.test === undefined &&
    !loop.isRecursive &&
    each.acceptsTarget(loop.target) &&
    each.accepts(loop.body) &&
    loop.otherwise.length === 0 &&
    end.accepts(statements.slice(at + 1)) &&
    !beginning.names.has(GENERATION) &&
    !each.names.has(GENERATION);
  if (!isApart) return undefined;
  return { numStatements: at + 1, knowsFirst: beginning.knowsFirst || each.knowsFirst || end.knowsFirst };
}

/** One walk over a part of a template. */
class Reading {
  readonly names = new Set<string>();
  knowsFirst = false;
  readonly #where: "around" | "each";

  constructor(where: "around" | "each") {
    this.#where = where;
  }

  accepts(statements: readonly Statement[]): boolean {
    return statements.every((statement) => this.#acceptsStatement(statement));
  }

  /** A variable set in one round of a loop is not set in the next. */
  acceptsTarget(target: Target): boolean {
    if (target.type === "TupleTarget") return target.items.every((item) => this.acceptsTarget(item));
    return target.type === "Name" && !["messages", "loop", GENERATION].includes(target.name);
  }

  #acceptsStatement(statement: Statement): boolean {
    switch (statement.type) {
      case "Text":
        return true;
      case "Output":
        return this.#acceptsExpression(statement.node);
      case "If":
        return (
          this.#acceptsExpression(statement.test) && this.accepts(statement.body) && this.accepts(statement.otherwise)
        );
      case "For":
        return (
          !statement.isRecursive &&
          this.acceptsTarget(statement.target) &&
          this.#acceptsExpression(statement.iter) &&
          (statement.test === undefined || this.#acceptsExpression(statement.test)) &&
          this.accepts(statement.body) &&
          this.accepts(statement.otherwise)
        );
      case "Assign":
        return (
          this.acceptsTarget(statement.target) &&
          this.#acceptsExpression(statement.node) &&
          (this.#where === "each" || !isOneTime(statement.node))
        );
      case "AssignBlock":
        return statement.filter === undefined && this.acceptsTarget(statement.target) && this.accepts(statement.body);
      case "CallBlock":
        return statement.call === undefined && this.accepts(statement.body);
      // These may carry state over, or are too rare to analyse.
      case "Macro":
      case "FilterBlock":
      case "With":
      case "Break":
      case "Continue":
        return false;
    }
  }

  #acceptsExpression(expression: Expression): boolean {
    switch (expression.type) {
      case "Name":
        this.names.add(expression.name);
        return expression.name !== "messages" && expression.name !== "loop";
      case "Getattr":
      case "Getitem":
        if (isFirstOfLoop(expression) || isRoleOfFirst(expression)) {
          this.knowsFirst = true;
          return true;
        }
        break;
      case "Call": {
        const { node, args, kwargs, dynArgs, dynKwargs } = expression;
        if (kwargs.length > 0 || dynArgs || dynKwargs || !args.every((arg) => this.#acceptsExpression(arg)))
          return false;
        if (node.type === "Name") return node.name === "raise_exception";
        return METHODS.has(nameIn(node) ?? "") && expressionsIn(node).every((part) => this.#acceptsExpression(part));
      }
    }
    return expressionsIn(expression).every((part) => this.#acceptsExpression(part));
  }
}

function isOneTime(expression: Expression): boolean {
  const isSo = expression.type === "Filter" && ONE_TIME_FILTERS.has(expression.name);
  return isSo || expressionsIn(expression).some(isOneTime);
}

function isMessageLoop(statement: Statement): boolean {
  return statement.type === "For" && isNamed(statement.iter, "messages");
}

/**
 * `{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif
 * %}`: here it always is.
 */
function isDefaultOfGeneration(statement: Statement): boolean {
  if (statement.type !== "If" || statement.otherwise.length > 0) return false;
  const { test, body } = statement;
  const asked = test.type === "Not" && test.node.type === "Test" ? test.node : undefined;
  if (asked?.name !== "defined" || !isNamed(asked.node, GENERATION)) return false;
  return body.every(
    (inner) =>
      (inner.type === "Text" && inner.text.trim() === "") ||
      (inner.type === "Assign" && inner.target.type === "Name" && inner.target.name === GENERATION),
  );
}

function isFirstOfLoop(expression: Expression): boolean {
  return nameIn(expression) === "first" && isNamed(ownerOf(expression), "loop");
}

/** `messages[0].role` or `messages[0]['role']`. */
function isRoleOfFirst(expression: Expression): boolean {
  const owner = ownerOf(expression);
  if (nameIn(expression) !== "role" || owner?.type !== "Getitem" || !isNamed(owner.node, "messages")) return false;
  return owner.arg.type === "Number" && owner.arg.value === 0 && !owner.arg.isFloat;
}

function ownerOf(expression: Expression): Expression | undefined {
  return expression.type === "Getattr" || expression.type === "Getitem" ? expression.node : undefined;
}

/** `.name` or `['name']`. */
function nameIn(expression: Expression): string | undefined {
  if (expression.type === "Getattr") return expression.attr;
  if (expression.type !== "Getitem" || expression.arg.type !== "Const") return undefined;
  return typeof expression.arg.value === "string" ? expression.arg.value : undefined;
}

function isNamed(expression: Expression | undefined, name: string): boolean {
  return expression?.type === "Name" && expression.name === name;
}
