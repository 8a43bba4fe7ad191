/** Tokens → expressions, the loosest first. Grammar, precedence and refusals are jinja2's. */
import type { Arguments, BinaryOperator, Call, ComparisonOperator, Expression, Filter } from "./ast.ts";
import type { TokenType } from "./lexer.ts";
import { describeToken, TokenCursor } from "./token-cursor.ts";

const COMPARISONS = new Set(["==", "!=", "<", "<=", ">", ">="]);
const ARGUMENT_BEGINS: readonly TokenType[] = ["name", "string", "integer", "float"];

export class ExpressionParser extends TokenCursor {
  parseExpression(withCondition = true): Expression {
    let left = this.#parseOr();
    while (withCondition && this.skipIf("name", "if")) {
      const { line } = left;
      const test = this.#parseOr();
      const otherwise = this.skipIf("name", "else") ? this.parseExpression() : undefined;
      left = { type: "Condition", test, value: left, ...(otherwise && { otherwise }), line };
    }
    return left;
  }

  #parseOr(): Expression {
    let left = this.#parseAnd();
    while (this.skipIf("name", "or")) left = { type: "Or", left, right: this.#parseAnd(), line: left.line };
    return left;
  }

  #parseAnd(): Expression {
    let left = this.#parseNot();
    while (this.skipIf("name", "and")) left = { type: "And", left, right: this.#parseNot(), line: left.line };
    return left;
  }

  #parseNot(): Expression {
    const { line } = this.current;
    return this.skipIf("name", "not") ? { type: "Not", node: this.#parseNot(), line } : this.#parseCompare();
  }

  #parseCompare(): Expression {
    const expr = this.#parseSum();
    const ops: { operator: ComparisonOperator; expr: Expression }[] = [];
    for (;;) {
      const operator = this.#readComparison();
      if (operator === undefined) break;
      ops.push({ operator, expr: this.#parseSum() });
    }
    return ops.length === 0 ? expr : { type: "Compare", expr, ops, line: expr.line };
  }

  #readComparison(): ComparisonOperator | undefined {
    const { type, value } = this.current;
    if (type === "operator" && COMPARISONS.has(value)) {
      this.next();
      return value as ComparisonOperator;
    }
    if (this.skipIf("name", "in")) return "in";
    const after = this.peek(1);
    if (!this.isName("not") || after?.type !== "name" || after.value !== "in") return undefined;
    this.next();
    this.next();
    return "not in";
  }

  #parseSum(): Expression {
    return this.#parseBinary(["+", "-"], () => this.#parseConcat());
  }

  #parseConcat(): Expression {
    const first = this.#parseProduct();
    if (!this.isOperator("~")) return first;
    const nodes = [first];
    while (this.skipIf("operator", "~")) nodes.push(this.#parseProduct());
    return { type: "Concat", nodes, line: first.line };
  }

  #parseProduct(): Expression {
    return this.#parseBinary(["*", "/", "//", "%"], () => this.#parsePower());
  }

  #parsePower(): Expression {
    return this.#parseBinary(["**"], () => this.#parseUnary(true));
  }

  #parseBinary(operators: readonly BinaryOperator[], parseOperand: () => Expression): Expression {
    let left = parseOperand();
    for (;;) {
      const operator = this.is("operator") ? operators.find((one) => one === this.current.value) : undefined;
      if (operator === undefined) return left;
      this.next();
      left = { type: "Binary", operator, left, right: parseOperand(), line: left.line };
    }
  }

  #parseUnary(withFilters: boolean): Expression {
    const { line } = this.current;
    let node: Expression;
    if (this.skipIf("operator", "-")) node = { type: "Neg", node: this.#parseUnary(false), line };
    else if (this.skipIf("operator", "+")) node = { type: "Pos", node: this.#parseUnary(false), line };
    else node = this.parsePrimary();
    node = this.#parsePostfix(node);
    return withFilters ? this.#parseFiltersAndTests(node) : node;
  }

  parsePrimary(): Expression {
    const { type, value, line } = this.next();
    switch (type) {
      case "name":
        if (/^(?:true|True|false|False)$/.test(value)) return { type: "Const", value: /^t/i.test(value), line };
        if (/^(?:none|None)$/.test(value)) return { type: "Const", value: null, line };
        return { type: "Name", name: value, line };
      case "string": {
        let text = value;
        while (this.is("string")) text += this.next().value;
        return { type: "Const", value: text, line };
      }
      case "integer":
        if (!Number.isSafeInteger(Number(value))) throw this.error(`${value} is beyond what is supported here`, line);
        return { type: "Number", value: Number(value), isFloat: false, line };
      case "float":
        if (!Number.isFinite(Number(value))) throw this.error(`${value} is beyond what is supported here`, line);
        return { type: "Number", value: Number(value), isFloat: true, line };
      case "operator":
        if (value === "(") return this.#parseParentheses(line);
        if (value === "[") return this.#parseList(line);
        if (value === "{") return this.#parseDict(line);
    }
    throw this.error(`unexpected ${describeToken({ type, value, line })}`, line);
  }

  #parseParentheses(line: number): Expression {
    const inner = this.isOperator(")")
      ? ({ type: "Tuple", items: [], line } as const)
      : this.parseItems(
          () => this.parseExpression(),
          () => this.isTupleEnd(),
          true,
        );
    this.expect("operator", ")");
    return inner;
  }

  parseTuple({ withCondition = true, endsAtRecursive = false }): Expression {
    const ends = () => this.isTupleEnd() || (endsAtRecursive && this.isName("recursive"));
    return this.parseItems(() => this.parseExpression(withCondition), ends, false);
  }

  /** One expression, or a tuple of those between commas. */
  parseItems(parseItem: () => Expression, isEnd: () => boolean, isEmptyAllowed: boolean): Expression {
    const { line } = this.current;
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (items.length > 0) this.expect("operator", ",");
      if (isEnd()) break;
      items.push(parseItem());
      if (!this.isOperator(",")) break;
      isTuple = true;
    }
    if (isTuple) return { type: "Tuple", items, line };
    if (items[0] !== undefined) return items[0];
    if (isEmptyAllowed) return { type: "Tuple", items, line };
    throw this.error(`expected an expression, got ${describeToken(this.current)}`);
  }

  isTupleEnd(): boolean {
    return this.is("variable_end") || this.is("block_end") || this.isOperator(")");
  }

  #parseList(line: number): Expression {
    const items: Expression[] = [];
    while (!this.isOperator("]")) {
      if (items.length > 0) this.expect("operator", ",");
      if (this.isOperator("]")) break;
      items.push(this.parseExpression());
    }
    this.next();
    return { type: "List", items, line };
  }

  #parseDict(line: number): Expression {
    const items: { key: Expression; value: Expression }[] = [];
    while (!this.isOperator("}")) {
      if (items.length > 0) this.expect("operator", ",");
      if (this.isOperator("}")) break;
      const key = this.parseExpression();
      this.expect("operator", ":");
      items.push({ key, value: this.parseExpression() });
    }
    this.next();
    return { type: "Dict", items, line };
  }

  #parsePostfix(given: Expression): Expression {
    let node = given;
    for (;;) {
      if (this.isOperator(".")) node = this.#parseAttribute(node);
      else if (this.isOperator("[")) node = this.#parseSubscript(node);
      else if (this.isOperator("(")) node = this.#parseCall(node);
      else return node;
    }
  }

  #parseAttribute(node: Expression): Expression {
    const { line } = this.next();
    const { type, value } = this.current;
    if (type === "name") {
      this.next();
      return { type: "Getattr", node, attr: value, line };
    }
    if (type !== "integer") throw this.error("expected a name or a number after the dot");
    return { type: "Getitem", node, arg: this.parsePrimary(), line };
  }

  #parseSubscript(node: Expression): Expression {
    const { line } = this.next();
    const result = this.#parseSubscribed(node, line);
    if (this.isOperator(",")) throw this.error("several subscripts are not supported here", line);
    this.expect("operator", "]");
    return result;
  }

  #parseSubscribed(node: Expression, line: number): Expression {
    if (this.isOperator("]")) throw this.error("expected a subscript");
    const part = () => (this.isOperator(":") || this.isOperator("]") ? undefined : this.parseExpression());
    const start = part();
    if (start !== undefined && !this.isOperator(":")) return { type: "Getitem", node, arg: start, line };
    this.expect("operator", ":");
    const stop = part();
    const step = this.skipIf("operator", ":") ? part() : undefined;
    return { type: "Slice", node, ...(start && { start }), ...(stop && { stop }), ...(step && { step }), line };
  }

  #parseCall(node: Expression): Call {
    const { line } = this.current;
    return { type: "Call", node, ...this.#parseArguments(), line };
  }

  #parseArguments(): Arguments {
    const { line } = this.expect("operator", "(");
    const args: Expression[] = [];
    const kwargs: { key: string; value: Expression }[] = [];
    let dynArgs: Expression | undefined;
    let dynKwargs: Expression | undefined;
    const check = (isRight: boolean) => {
      if (!isRight) throw this.error("invalid syntax for function call expression", line);
    };
    for (let isFirst = true; !this.isOperator(")"); isFirst = false) {
      if (!isFirst) this.expect("operator", ",");
      if (!isFirst && this.isOperator(")")) break;
      const after = this.peek(1);
      if (this.skipIf("operator", "*")) {
        check(!dynArgs && !dynKwargs);
        dynArgs = this.parseExpression();
      } else if (this.skipIf("operator", "**")) {
        check(!dynKwargs);
        dynKwargs = this.parseExpression();
      } else if (this.is("name") && after?.type === "operator" && after.value === "=") {
        check(!dynKwargs);
        const key = this.next().value;
        check(!kwargs.some((other) => other.key === key));
        this.next();
        kwargs.push({ key, value: this.parseExpression() });
      } else {
        check(!dynArgs && !dynKwargs && kwargs.length === 0);
        args.push(this.parseExpression());
      }
    }
    this.next();
    return { args, kwargs, ...(dynArgs && { dynArgs }), ...(dynKwargs && { dynKwargs }) };
  }

  #parseFiltersAndTests(given: Expression): Expression {
    let node = given;
    for (;;) {
      if (this.isOperator("|")) node = this.parseFilterChain(node)!;
      else if (this.isName("is")) node = this.#parseTest(node);
      else if (this.isOperator("(")) node = this.#parseCall(node);
      else return node;
    }
  }

  parseFilterChain(node: Expression | undefined, first?: Filter): Filter | undefined {
    let filter = first;
    while (this.skipIf("operator", "|")) filter = this.parseOneFilter(filter ?? node);
    return filter;
  }

  parseOneFilter(node: Expression | undefined): Filter {
    const { line } = this.current;
    const name = this.#parseDottedName();
    const given = this.isOperator("(") ? this.#parseArguments() : { args: [], kwargs: [] };
    return { type: "Filter", name, ...(node && { node }), ...given, line };
  }

  #parseTest(node: Expression): Expression {
    const { line } = this.next();
    const isNegated = this.skipIf("name", "not");
    const name = this.#parseDottedName();
    const isArgument =
      (ARGUMENT_BEGINS.includes(this.current.type) && !this.isName("else", "or", "and")) ||
      this.isOperator("[") ||
      this.isOperator("{");
    let given: Arguments = { args: [], kwargs: [] };
    if (this.isOperator("(")) given = this.#parseArguments();
    else if (isArgument) {
      if (this.isName("is")) throw this.error("tests cannot be chained with is");
      given = { args: [this.#parsePostfix(this.parsePrimary())], kwargs: [] };
    }
    const test: Expression = { type: "Test", name, node, ...given, line };
    return isNegated ? { type: "Not", node: test, line } : test;
  }

  #parseDottedName(): string {
    let name = this.expect("name").value;
    while (this.skipIf("operator", ".")) name += `.${this.expect("name").value}`;
    return name;
  }
}
