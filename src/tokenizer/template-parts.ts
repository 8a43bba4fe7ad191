/**
 * Templates that show every message by itself: what they write of a conversation is the beginning, each message's own
 * text, and the end. Of such a conversation the last messages can be rendered without the others. That a template is one
 * is read from its syntax, so that it holds for any messages; what is not understood is none.
 */
import { Template } from "@huggingface/jinja";

export interface TemplateParts {
  /** The template without what it writes behind the last message. */
  readonly upToMessages: Template;
  /** It may show the first message otherwise than it would another one, or ask for that one's role. */
  readonly knowsFirst: boolean;
}

/** As the parser makes them, with those fields that are asked for by name. */
interface Node {
  readonly type: string;
  readonly value?: unknown;
  readonly object?: unknown;
  readonly property?: unknown;
  readonly computed?: unknown;
  readonly callee?: unknown;
  readonly args?: unknown;
  readonly filter?: unknown;
  readonly assignee?: unknown;
  readonly test?: unknown;
  readonly operand?: unknown;
  readonly argument?: unknown;
  readonly negate?: unknown;
  readonly loopvar?: unknown;
  readonly iterable?: unknown;
  readonly body?: unknown;
  readonly alternate?: unknown;
  readonly defaultBlock?: unknown;
}

/** What each kind of node is made of. A kind that is not listed may remember something, or is not worth the care. */
const PARTS: Readonly<Record<string, readonly string[]>> = {
  ArrayLiteral: ["value"],
  BinaryExpression: ["left", "right"],
  Comment: [],
  FilterExpression: ["operand"],
  FloatLiteral: [],
  For: ["loopvar", "iterable", "body", "defaultBlock"],
  If: ["test", "body", "alternate"],
  IntegerLiteral: [],
  KeywordArgumentExpression: ["value"],
  SelectExpression: ["lhs", "test"],
  SliceExpression: ["start", "stop", "step"],
  StringLiteral: [],
  Ternary: ["condition", "trueExpr", "falseExpr"],
  TestExpression: ["operand"],
  TupleLiteral: ["value"],
  UnaryExpression: ["argument"],
};

/** Methods that change nothing. Of functions only `raise_exception` gives the same each time. */
const METHODS = new Set(["strip", "lstrip", "rstrip", "startswith", "endswith", "split", "replace", "upper", "lower"]);
const GENERATION = "add_generation_prompt";

/** @returns undefined if some message's text may depend on others, on their number, or on what follows them */
export function partsOf(template: Template, source: string): TemplateParts | undefined {
  const statements = template.parsed.body as readonly unknown[] as readonly Node[];
  const at = statements.findIndex(isMessageLoop);
  if (at === -1) return undefined;
  const loop = statements[at]!;
  const before = statements.slice(0, at).filter((statement) => !isDefaultOfGeneration(statement));
  const [beginning, each, end] = [new Reading("around"), new Reading("each"), new Reading("around")];
  const isApart =
    beginning.accepts(before) &&
    each.accepts(loop.loopvar) &&
    each.accepts(loop.body) &&
    (loop.defaultBlock as readonly unknown[]).length === 0 &&
    end.accepts(statements.slice(at + 1)) &&
    !beginning.names.has(GENERATION) &&
    !each.names.has(GENERATION);
  if (!isApart) return undefined;
  const upToMessages = new Template(source);
  upToMessages.parsed.body.splice(at + 1);
  return { upToMessages, knowsFirst: beginning.knowsFirst || each.knowsFirst || end.knowsFirst };
}

/** One walk over a part of a template, in the order in which it runs. */
class Reading {
  readonly names = new Set<string>();
  knowsFirst = false;
  readonly #where: "around" | "each";
  /** Variables that have been set whatever the message. */
  readonly #set = new Set<string>();

  constructor(where: "around" | "each") {
    this.#where = where;
  }

  /** @param part a list of statements, or one node */
  accepts(part: unknown): boolean {
    if (!Array.isArray(part)) return part === undefined || part === null || this.#acceptsNode(part as Node, false);
    return part.every((statement: Node) => this.#acceptsNode(statement, true));
  }

  #acceptsNode(node: Node, isOnTheWay: boolean): boolean {
    switch (node.type) {
      case "Identifier":
        this.names.add(node.value as string);
        return node.value !== "messages" && node.value !== "loop";
      case "MemberExpression":
        return this.#acceptsMember(node);
      case "CallExpression":
        return this.#acceptsCall(node);
      case "Set":
        return this.#acceptsSet(node, isOnTheWay);
    }
    const parts = PARTS[node.type];
    if (parts === undefined) return false;
    const filter = node.type === "FilterExpression" ? (node.filter as Node) : undefined;
    if (filter?.type === "CallExpression" && !this.#acceptsAll(filter.args)) return false;
    const fields = node as unknown as Readonly<Record<string, unknown>>;
    return parts.every((part) => this.#acceptsAll(fields[part]));
  }

  #acceptsAll(part: unknown): boolean {
    return Array.isArray(part) ? part.every((node: Node) => this.#acceptsNode(node, false)) : this.accepts(part);
  }

  #acceptsMember(node: Node): boolean {
    const isFirst = nameIn(node) === "first" && isNamed(node.object, "loop");
    const isRoleOfFirst = nameIn(node) === "role" && isFirstMessage(node.object as Node);
    if (isFirst || isRoleOfFirst) {
      this.knowsFirst = true;
      return true;
    }
    const property = node.computed ? node.property : undefined;
    return this.accepts(node.object) && this.accepts(property);
  }

  #acceptsCall({ callee, args }: Node): boolean {
    const called = callee as Node;
    const isMethod = called.type === "MemberExpression" && METHODS.has(nameIn(called) ?? "");
    if (isMethod) return this.accepts(called.object) && this.#acceptsAll(args);
    return isNamed(called, "raise_exception") && this.#acceptsAll(args);
  }

  /** What one message sets the next one still sees: so it must be set anew before it is used. */
  #acceptsSet({ assignee, value, body }: Node, isOnTheWay: boolean): boolean {
    const name = (assignee as Node).type === "Identifier" ? ((assignee as Node).value as string) : undefined;
    if (name === undefined || name === "messages" || name === "loop" || name === GENERATION) return false;
    if (!this.#acceptsAll(value) || !this.#acceptsAll(body)) return false;
    if (this.#where === "around" || this.#set.has(name)) return true;
    if (!isOnTheWay || this.names.has(name)) return false;
    this.#set.add(name);
    return true;
  }
}

function isMessageLoop({ type, iterable }: Node): boolean {
  return type === "For" && isNamed(iterable, "messages");
}

/** `{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}`: here it always is. */
function isDefaultOfGeneration({ type, test, body, alternate }: Node): boolean {
  if (type !== "If" || (alternate as readonly Node[]).length > 0) return false;
  const asksOnly = isUndefinedTest(test as Node);
  const written = (body as readonly Node[]).filter((statement) => !isBlank(statement));
  return asksOnly && written.every(({ type, assignee }) => type === "Set" && isNamed(assignee, GENERATION));
}

function isUndefinedTest(test: Node): boolean {
  const inner = test.type === "UnaryExpression" ? (test.argument as Node) : test;
  const isNegated = (test.type === "UnaryExpression") !== (inner.negate === true);
  return (
    inner.type === "TestExpression" && isNegated && isNamed(inner.operand, GENERATION) && isNamed(inner.test, "defined")
  );
}

function isBlank({ type, value }: Node): boolean {
  return type === "Comment" || (type === "StringLiteral" && (value as string).trim() === "");
}

function isFirstMessage({ type, object, property, computed }: Node): boolean {
  const index = property as Node | undefined;
  const isZero = computed === true && index?.type === "IntegerLiteral" && index.value === 0;
  return type === "MemberExpression" && isZero && isNamed(object, "messages");
}

/** `.name` or `['name']`. */
function nameIn({ property, computed }: Node): string | undefined {
  const { type, value } = property as Node;
  return type === (computed ? "StringLiteral" : "Identifier") ? (value as string) : undefined;
}

function isNamed(node: unknown, name: string): boolean {
  const { type, value } = node as Node;
  return type === "Identifier" && value === name;
}
