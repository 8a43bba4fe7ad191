/** Tokens → nodes. Grammar, precedence and refusals are jinja2's. */
import type {
  Arguments,
  BinaryOperator,
  Call,
  CallBlock,
  ComparisonOperator,
  Expression,
  Filter,
  For,
  Macro,
  Name,
  Signature,
  Statement,
  Target,
} from "./ast.ts";
import { TemplateError } from "./error.ts";
import { type Token, type TokenType, tokenize } from "./lexer.ts";

/** Tags of jinja2 that would need other templates, or change what escaping does. */
const UNSUPPORTED_TAGS = new Set(["block", "extends", "include", "import", "from", "autoescape"]);
const COMPARISONS = new Set(["==", "!=", "<", "<=", ">", ">="]);
const ARGUMENT_BEGINS: readonly TokenType[] = ["name", "string", "integer", "float"];

/** @throws TemplateError */
export function parse(template: string): Statement[] {
  return new Parser(tokenize(template)).parse();
}

class Parser {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  parse(): Statement[] {
    return this.#parseUntil([]);
  }

  get #current(): Token {
    return this.#tokens[this.#at]!;
  }

  #next(): Token {
    const token = this.#current;
    if (token.type !== "eof") this.#at++;
    return token;
  }

  #is(type: TokenType, value?: string): boolean {
    const { type: given, value: written } = this.#current;
    return given === type && (value === undefined || value === written);
  }

  #isOperator(value: string): boolean {
    return this.#is("operator", value);
  }

  #isName(...values: readonly string[]): boolean {
    return this.#is("name") && values.includes(this.#current.value);
  }

  #skipIf(type: TokenType, value: string): boolean {
    const isThere = this.#is(type, value);
    if (isThere) this.#at++;
    return isThere;
  }

  #expect(type: TokenType, value?: string): Token {
    if (this.#is(type, value)) return this.#next();
    throw this.#error(`expected ${value === undefined ? type : `'${value}'`}, got ${describe(this.#current)}`);
  }

  #error(message: string, line = this.#current.line): TemplateError {
    return new TemplateError(message, line);
  }

  // Statements

  /** Parses up to a tag with one of these names, which then is the current token. */
  #parseUntil(ends: readonly string[]): Statement[] {
    const body: Statement[] = [];
    for (;;) {
      const { type, value, line } = this.#next();
      if (type === "eof") {
        if (ends.length === 0) return body;
        throw this.#error(`the template ends where ${ends.join(" or ")} is expected`);
      }
      if (type === "data") body.push({ type: "Text", text: value, line });
      else if (type === "variable_begin") {
        body.push({ type: "Output", node: this.#parseTuple({}), line });
        this.#expect("variable_end");
      } else {
        if (ends.length > 0 && this.#isName(...ends)) return body;
        body.push(...this.#parseStatement());
        this.#expect("block_end");
      }
    }
  }

  /**
   * A tag's body. @returns the name of the tag that ends it; the name has been read, the tag's end
   * has not
   */
  #parseBody(...ends: readonly string[]): { body: Statement[]; end: string } {
    this.#skipIf("operator", ":");
    this.#expect("block_end");
    const body = this.#parseUntil(ends);
    return { body, end: this.#next().value };
  }

  #parseStatement(): Statement[] {
    const { value: tag, line } = this.#expect("name");
    switch (tag) {
      case "for":
        return [this.#parseFor(line)];
      case "if":
        return [this.#parseIf(line)];
      case "set":
        return [this.#parseSet(line)];
      case "macro":
        return [this.#parseMacro(line)];
      case "call":
        return [this.#parseCallBlock(line)];
      case "filter": {
        const filter = this.#parseFilterChain(undefined, this.#parseOneFilter(undefined))!;
        return [{ type: "FilterBlock", filter, body: this.#parseBody("endfilter").body, line }];
      }
      case "with":
        return [this.#parseWith(line)];
      case "print":
        return this.#parsePrint(line);
      case "generation":
        return [{ type: "CallBlock", args: [], defaults: [], body: this.#parseBody("endgeneration").body, line }];
      case "break":
        return [{ type: "Break", line }];
      case "continue":
        return [{ type: "Continue", line }];
    }
    if (UNSUPPORTED_TAGS.has(tag)) throw this.#error(`{% ${tag} %} is not supported here`, line);
    throw this.#error(`unknown or misplaced tag '${tag}'`, line);
  }

  #parseFor(line: number): For {
    const target = this.#parseTarget({ endsAtIn: true });
    this.#expect("name", "in");
    const iter = this.#parseTuple({ withCondition: false, endsAtRecursive: true });
    const test = this.#skipIf("name", "if") ? this.#parseExpression() : undefined;
    const isRecursive = this.#skipIf("name", "recursive");
    const { body, end } = this.#parseBody("endfor", "else");
    const otherwise = end === "else" ? this.#parseBody("endfor").body : [];
    return { type: "For", target, iter, body, otherwise, ...(test && { test }), isRecursive, line };
  }

  #parseIf(line: number): Statement {
    const test = this.#parseTuple({ withCondition: false });
    const { body, end } = this.#parseBody("elif", "else", "endif");
    let otherwise: Statement[] = [];
    if (end === "elif") otherwise = [this.#parseIf(this.#current.line)];
    else if (end === "else") otherwise = this.#parseBody("endif").body;
    return { type: "If", test, body, otherwise, line };
  }

  #parseSet(line: number): Statement {
    const target = this.#parseTarget({ withNamespace: true });
    if (this.#skipIf("operator", "=")) return { type: "Assign", target, node: this.#parseTuple({}), line };
    const filter = this.#isOperator("|") ? this.#parseFilterChain(undefined) : undefined;
    const { body } = this.#parseBody("endset");
    return { type: "AssignBlock", target, ...(filter && { filter }), body, line };
  }

  #parseMacro(line: number): Macro {
    const name = this.#expect("name").value;
    return { type: "Macro", name, ...this.#parseSignature(), body: this.#parseBody("endmacro").body, line };
  }

  #parseCallBlock(line: number): CallBlock {
    const signature = this.#isOperator("(") ? this.#parseSignature() : { args: [], defaults: [] };
    const call = this.#parseExpression();
    if (call.type !== "Call") throw this.#error("expected a call", line);
    return { type: "CallBlock", call, ...signature, body: this.#parseBody("endcall").body, line };
  }

  #parseWith(line: number): Statement {
    const targets: Target[] = [];
    const values: Expression[] = [];
    while (!this.#is("block_end") && !this.#isOperator(":")) {
      if (targets.length > 0) this.#expect("operator", ",");
      targets.push(this.#parseTarget({}));
      this.#expect("operator", "=");
      values.push(this.#parseExpression());
    }
    return { type: "With", targets, values, body: this.#parseBody("endwith").body, line };
  }

  #parsePrint(line: number): Statement[] {
    const printed: Statement[] = [];
    while (!this.#is("block_end")) {
      if (printed.length > 0) this.#expect("operator", ",");
      printed.push({ type: "Output", node: this.#parseExpression(), line });
    }
    return printed;
  }

  #parseSignature(): Signature {
    const args: Name[] = [];
    const defaults: Expression[] = [];
    this.#expect("operator", "(");
    while (!this.#isOperator(")")) {
      if (args.length > 0) this.#expect("operator", ",");
      const { value: name, line } = this.#expect("name");
      if (args.some((arg) => arg.name === name)) throw this.#error(`the argument '${name}' is given twice`, line);
      if (this.#skipIf("operator", "=")) defaults.push(this.#parseExpression());
      else if (defaults.length > 0) throw this.#error("non-default argument follows default argument", line);
      args.push({ type: "Name", name, line });
    }
    this.#next();
    return { args, defaults };
  }

  /** Of an assignment or a loop. */
  #parseTarget({ withNamespace = false, endsAtIn = false }): Target {
    const { value: name, line } = this.#current;
    const [dot, attr] = [this.#tokens[this.#at + 1], this.#tokens[this.#at + 2]];
    const isNamespace = this.#is("name") && dot?.type === "operator" && dot.value === ".";
    if (withNamespace && isNamespace && attr?.type === "name") {
      this.#at += 3;
      if (this.#isOperator(",")) throw this.#error("several attributes in one assignment are not supported here", line);
      return { type: "NamespaceTarget", name, attr: attr.value, line };
    }
    const ends = () => this.#isTupleEnd() || (endsAtIn && this.#isName("in"));
    return this.#asTarget(this.#parseItems(() => this.#parsePrimary(), ends, false));
  }

  #asTarget(expression: Expression): Target {
    if (expression.type === "Name") return expression;
    if (expression.type === "Tuple") {
      return {
        type: "TupleTarget",
        items: expression.items.map((item) => this.#asTarget(item)),
        line: expression.line,
      };
    }
    throw this.#error("only names can be assigned to", expression.line);
  }

  // Expressions, the loosest first

  #parseExpression(withCondition = true): Expression {
    let left = this.#parseOr();
    while (withCondition && this.#skipIf("name", "if")) {
      const { line } = left;
      const test = this.#parseOr();
      const otherwise = this.#skipIf("name", "else") ? this.#parseExpression() : undefined;
      left = { type: "Condition", test, value: left, ...(otherwise && { otherwise }), line };
    }
    return left;
  }

  #parseOr(): Expression {
    let left = this.#parseAnd();
    while (this.#skipIf("name", "or")) left = { type: "Or", left, right: this.#parseAnd(), line: left.line };
    return left;
  }

  #parseAnd(): Expression {
    let left = this.#parseNot();
    while (this.#skipIf("name", "and")) left = { type: "And", left, right: this.#parseNot(), line: left.line };
    return left;
  }

  #parseNot(): Expression {
    const { line } = this.#current;
    return this.#skipIf("name", "not") ? { type: "Not", node: this.#parseNot(), line } : this.#parseCompare();
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
    const { type, value } = this.#current;
    if (type === "operator" && COMPARISONS.has(value)) {
      this.#at++;
      return value as ComparisonOperator;
    }
    if (this.#skipIf("name", "in")) return "in";
    const after = this.#tokens[this.#at + 1];
    if (!this.#isName("not") || after?.type !== "name" || after.value !== "in") return undefined;
    this.#at += 2;
    return "not in";
  }

  #parseSum(): Expression {
    return this.#parseBinary(["+", "-"], () => this.#parseConcat());
  }

  #parseConcat(): Expression {
    const first = this.#parseProduct();
    if (!this.#isOperator("~")) return first;
    const nodes = [first];
    while (this.#skipIf("operator", "~")) nodes.push(this.#parseProduct());
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
      const operator = this.#is("operator") ? operators.find((one) => one === this.#current.value) : undefined;
      if (operator === undefined) return left;
      this.#at++;
      left = { type: "Binary", operator, left, right: parseOperand(), line: left.line };
    }
  }

  #parseUnary(withFilters: boolean): Expression {
    const { line } = this.#current;
    let node: Expression;
    if (this.#skipIf("operator", "-")) node = { type: "Neg", node: this.#parseUnary(false), line };
    else if (this.#skipIf("operator", "+")) node = { type: "Pos", node: this.#parseUnary(false), line };
    else node = this.#parsePrimary();
    node = this.#parsePostfix(node);
    return withFilters ? this.#parseFiltersAndTests(node) : node;
  }

  #parsePrimary(): Expression {
    const { type, value, line } = this.#next();
    switch (type) {
      case "name":
        if (/^(?:true|True|false|False)$/.test(value)) return { type: "Const", value: /^t/i.test(value), line };
        if (/^(?:none|None)$/.test(value)) return { type: "Const", value: null, line };
        return { type: "Name", name: value, line };
      case "string": {
        let text = value;
        while (this.#is("string")) text += this.#next().value;
        return { type: "Const", value: text, line };
      }
      case "integer":
        if (!Number.isSafeInteger(Number(value))) throw this.#error(`${value} is beyond what is supported here`, line);
        return { type: "Number", value: Number(value), isFloat: false, line };
      case "float":
        if (!Number.isFinite(Number(value))) throw this.#error(`${value} is beyond what is supported here`, line);
        return { type: "Number", value: Number(value), isFloat: true, line };
      case "operator":
        if (value === "(") return this.#parseParentheses(line);
        if (value === "[") return this.#parseList(line);
        if (value === "{") return this.#parseDict(line);
    }
    throw this.#error(`unexpected ${describe({ type, value, line })}`, line);
  }

  #parseParentheses(line: number): Expression {
    const inner = this.#isOperator(")")
      ? ({ type: "Tuple", items: [], line } as const)
      : this.#parseItems(
          () => this.#parseExpression(),
          () => this.#isTupleEnd(),
          true,
        );
    this.#expect("operator", ")");
    return inner;
  }

  #parseTuple({ withCondition = true, endsAtRecursive = false }): Expression {
    const ends = () => this.#isTupleEnd() || (endsAtRecursive && this.#isName("recursive"));
    return this.#parseItems(() => this.#parseExpression(withCondition), ends, false);
  }

  /** One expression, or a tuple of those between commas. */
  #parseItems(parseItem: () => Expression, isEnd: () => boolean, isEmptyAllowed: boolean): Expression {
    const { line } = this.#current;
    const items: Expression[] = [];
    let isTuple = false;
    for (;;) {
      if (items.length > 0) this.#expect("operator", ",");
      if (isEnd()) break;
      items.push(parseItem());
      if (!this.#isOperator(",")) break;
      isTuple = true;
    }
    if (isTuple) return { type: "Tuple", items, line };
    if (items[0] !== undefined) return items[0];
    if (isEmptyAllowed) return { type: "Tuple", items, line };
    throw this.#error(`expected an expression, got ${describe(this.#current)}`);
  }

  #isTupleEnd(): boolean {
    return this.#is("variable_end") || this.#is("block_end") || this.#isOperator(")");
  }

  #parseList(line: number): Expression {
    const items: Expression[] = [];
    while (!this.#isOperator("]")) {
      if (items.length > 0) this.#expect("operator", ",");
      if (this.#isOperator("]")) break;
      items.push(this.#parseExpression());
    }
    this.#next();
    return { type: "List", items, line };
  }

  #parseDict(line: number): Expression {
    const items: { key: Expression; value: Expression }[] = [];
    while (!this.#isOperator("}")) {
      if (items.length > 0) this.#expect("operator", ",");
      if (this.#isOperator("}")) break;
      const key = this.#parseExpression();
      this.#expect("operator", ":");
      items.push({ key, value: this.#parseExpression() });
    }
    this.#next();
    return { type: "Dict", items, line };
  }

  #parsePostfix(given: Expression): Expression {
    let node = given;
    for (;;) {
      if (this.#isOperator(".")) node = this.#parseAttribute(node);
      else if (this.#isOperator("[")) node = this.#parseSubscript(node);
      else if (this.#isOperator("(")) node = this.#parseCall(node);
      else return node;
    }
  }

  #parseAttribute(node: Expression): Expression {
    const { line } = this.#next();
    const { type, value } = this.#current;
    if (type === "name") {
      this.#at++;
      return { type: "Getattr", node, attr: value, line };
    }
    if (type !== "integer") throw this.#error("expected a name or a number after the dot");
    return { type: "Getitem", node, arg: this.#parsePrimary(), line };
  }

  #parseSubscript(node: Expression): Expression {
    const { line } = this.#next();
    const result = this.#parseSubscribed(node, line);
    if (this.#isOperator(",")) throw this.#error("several subscripts are not supported here", line);
    this.#expect("operator", "]");
    return result;
  }

  #parseSubscribed(node: Expression, line: number): Expression {
    if (this.#isOperator("]")) throw this.#error("expected a subscript");
    const part = () => (this.#isOperator(":") || this.#isOperator("]") ? undefined : this.#parseExpression());
    const start = part();
    if (start !== undefined && !this.#isOperator(":")) return { type: "Getitem", node, arg: start, line };
    this.#expect("operator", ":");
    const stop = part();
    const step = this.#skipIf("operator", ":") ? part() : undefined;
    return { type: "Slice", node, ...(start && { start }), ...(stop && { stop }), ...(step && { step }), line };
  }

  #parseCall(node: Expression): Call {
    const { line } = this.#current;
    return { type: "Call", node, ...this.#parseArguments(), line };
  }

  #parseArguments(): Arguments {
    const { line } = this.#expect("operator", "(");
    const args: Expression[] = [];
    const kwargs: { key: string; value: Expression }[] = [];
    let dynArgs: Expression | undefined;
    let dynKwargs: Expression | undefined;
    const check = (isRight: boolean) => {
      if (!isRight) throw this.#error("invalid syntax for function call expression", line);
    };
    for (let isFirst = true; !this.#isOperator(")"); isFirst = false) {
      if (!isFirst) this.#expect("operator", ",");
      if (!isFirst && this.#isOperator(")")) break;
      const after = this.#tokens[this.#at + 1];
      if (this.#skipIf("operator", "*")) {
        check(!dynArgs && !dynKwargs);
        dynArgs = this.#parseExpression();
      } else if (this.#skipIf("operator", "**")) {
        check(!dynKwargs);
        dynKwargs = this.#parseExpression();
      } else if (this.#is("name") && after?.type === "operator" && after.value === "=") {
        check(!dynKwargs);
        const key = this.#next().value;
        check(!kwargs.some((other) => other.key === key));
        this.#next();
        kwargs.push({ key, value: this.#parseExpression() });
      } else {
        check(!dynArgs && !dynKwargs && kwargs.length === 0);
        args.push(this.#parseExpression());
      }
    }
    this.#next();
    return { args, kwargs, ...(dynArgs && { dynArgs }), ...(dynKwargs && { dynKwargs }) };
  }

  #parseFiltersAndTests(given: Expression): Expression {
    let node = given;
    for (;;) {
      if (this.#isOperator("|")) node = this.#parseFilterChain(node)!;
      else if (this.#isName("is")) node = this.#parseTest(node);
      else if (this.#isOperator("(")) node = this.#parseCall(node);
      else return node;
    }
  }

  #parseFilterChain(node: Expression | undefined, first?: Filter): Filter | undefined {
    let filter = first;
    while (this.#skipIf("operator", "|")) filter = this.#parseOneFilter(filter ?? node);
    return filter;
  }

  #parseOneFilter(node: Expression | undefined): Filter {
    const { line } = this.#current;
    const name = this.#parseDottedName();
    const given = this.#isOperator("(") ? this.#parseArguments() : { args: [], kwargs: [] };
    return { type: "Filter", name, ...(node && { node }), ...given, line };
  }

  #parseTest(node: Expression): Expression {
    const { line } = this.#next();
    const isNegated = this.#skipIf("name", "not");
    const name = this.#parseDottedName();
    const isArgument =
      (ARGUMENT_BEGINS.includes(this.#current.type) && !this.#isName("else", "or", "and")) ||
      this.#isOperator("[") ||
      this.#isOperator("{");
    let given: Arguments = { args: [], kwargs: [] };
    if (this.#isOperator("(")) given = this.#parseArguments();
    else if (isArgument) {
      if (this.#isName("is")) throw this.#error("tests cannot be chained with is");
      given = { args: [this.#parsePostfix(this.#parsePrimary())], kwargs: [] };
    }
    const test: Expression = { type: "Test", name, node, ...given, line };
    return isNegated ? { type: "Not", node: test, line } : test;
  }

  #parseDottedName(): string {
    let name = this.#expect("name").value;
    while (this.#skipIf("operator", ".")) name += `.${this.#expect("name").value}`;
    return name;
  }
}

function describe({ type, value }: Token): string {
  if (type === "eof") return "the end of the template";
  return value === "" ? type.replace("_", " ") : `${type} '${value}'`;
}
