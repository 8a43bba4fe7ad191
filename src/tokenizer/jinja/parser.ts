/** Tokens → statements. Grammar and refusals are jinja2's. */
import type { CallBlock, Expression, For, Macro, Name, Signature, Statement, Target } from "./ast.ts";
import { ExpressionParser } from "./expression-parser.ts";
import { tokenize } from "./lexer.ts";

/** Tags of jinja2 that would need other templates, or change what escaping does. */
const UNSUPPORTED_TAGS = new Set(["block", "extends", "include", "import", "from", "autoescape"]);

/** @throws TemplateError */
export function parse(template: string): Statement[] {
  return new Parser(tokenize(template)).parse();
}

class Parser extends ExpressionParser {
  parse(): Statement[] {
    return this.#parseUntil([]);
  }

  /** Parses up to a tag with one of these names, which then is the current token. */
  #parseUntil(ends: readonly string[]): Statement[] {
    const body: Statement[] = [];
    for (;;) {
      const { type, value, line } = this.next();
      if (type === "eof") {
        if (ends.length === 0) return body;
        throw this.error(`the template ends where ${ends.join(" or ")} is expected`);
      }
      if (type === "data") body.push({ type: "Text", text: value, line });
      else if (type === "variable_begin") {
        body.push({ type: "Output", node: this.parseTuple({}), line });
        this.expect("variable_end");
      } else {
        if (ends.length > 0 && this.isName(...ends)) return body;
        body.push(...this.#parseStatement());
        this.expect("block_end");
      }
    }
  }

  /**
   * A tag's body. @returns the name of the tag that ends it; the name has been read, the tag's end
   * has not
   */
  #parseBody(...ends: readonly string[]): { body: Statement[]; end: string } {
    this.skipIf("operator", ":");
    this.expect("block_end");
    const body = this.#parseUntil(ends);
    return { body, end: this.next().value };
  }

  #parseStatement(): Statement[] {
    const { value: tag, line } = this.expect("name");
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
        const filter = this.parseFilterChain(undefined, this.parseOneFilter(undefined))!;
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
    if (UNSUPPORTED_TAGS.has(tag)) throw this.error(`{% ${tag} %} is not supported here`, line);
    throw this.error(`unknown or misplaced tag '${tag}'`, line);
  }

  #parseFor(line: number): For {
    const target = this.#parseTarget({ endsAtIn: true });
    this.expect("name", "in");
    const iter = this.parseTuple({ withCondition: false, endsAtRecursive: true });
    const test = this.skipIf("name", "if") ? this.parseExpression() : undefined;
    const isRecursive = this.skipIf("name", "recursive");
    const { body, end } = this.#parseBody("endfor", "else");
    const otherwise = end === "else" ? this.#parseBody("endfor").body : [];
    return { type: "For", target, iter, body, otherwise, ...(test && { test }), isRecursive, line };
  }

  #parseIf(line: number): Statement {
    const test = this.parseTuple({ withCondition: false });
    const { body, end } = this.#parseBody("elif", "else", "endif");
    let otherwise: Statement[] = [];
    if (end === "elif") otherwise = [this.#parseIf(this.current.line)];
    else if (end === "else") otherwise = this.#parseBody("endif").body;
    return { type: "If", test, body, otherwise, line };
  }

  #parseSet(line: number): Statement {
    const target = this.#parseTarget({ withNamespace: true });
    if (this.skipIf("operator", "=")) return { type: "Assign", target, node: this.parseTuple({}), line };
    const filter = this.isOperator("|") ? this.parseFilterChain(undefined) : undefined;
    const { body } = this.#parseBody("endset");
    return { type: "AssignBlock", target, ...(filter && { filter }), body, line };
  }

  #parseMacro(line: number): Macro {
    const name = this.expect("name").value;
    return { type: "Macro", name, ...this.#parseSignature(), body: this.#parseBody("endmacro").body, line };
  }

  #parseCallBlock(line: number): CallBlock {
    const signature = this.isOperator("(") ? this.#parseSignature() : { args: [], defaults: [] };
    const call = this.parseExpression();
    if (call.type !== "Call") throw this.error("expected a call", line);
    return { type: "CallBlock", call, ...signature, body: this.#parseBody("endcall").body, line };
  }

  #parseWith(line: number): Statement {
    const targets: Target[] = [];
    const values: Expression[] = [];
    while (!this.is("block_end") && !this.isOperator(":")) {
      if (targets.length > 0) this.expect("operator", ",");
      targets.push(this.#parseTarget({}));
      this.expect("operator", "=");
      values.push(this.parseExpression());
    }
    return { type: "With", targets, values, body: this.#parseBody("endwith").body, line };
  }

  #parsePrint(line: number): Statement[] {
    const printed: Statement[] = [];
    while (!this.is("block_end")) {
      if (printed.length > 0) this.expect("operator", ",");
      printed.push({ type: "Output", node: this.parseExpression(), line });
    }
    return printed;
  }

  #parseSignature(): Signature {
    const args: Name[] = [];
    const defaults: Expression[] = [];
    this.expect("operator", "(");
    while (!this.isOperator(")")) {
      if (args.length > 0) this.expect("operator", ",");
      const { value: name, line } = this.expect("name");
      if (args.some((arg) => arg.name === name)) throw this.error(`the argument '${name}' is given twice`, line);
      if (this.skipIf("operator", "=")) defaults.push(this.parseExpression());
      else if (defaults.length > 0) throw this.error("non-default argument follows default argument", line);
      args.push({ type: "Name", name, line });
    }
    this.next();
    return { args, defaults };
  }

  /** Of an assignment or a loop. */
  #parseTarget({ withNamespace = false, endsAtIn = false }): Target {
    const { value: name, line } = this.current;
    const [dot, attr] = [this.peek(1), this.peek(2)];
    const isNamespace = this.is("name") && dot?.type === "operator" && dot.value === ".";
    if (withNamespace && isNamespace && attr?.type === "name") {
      for (let i = 0; i < 3; i++) this.next();
      if (this.isOperator(",")) throw this.error("several attributes in one assignment are not supported here", line);
      return { type: "NamespaceTarget", name, attr: attr.value, line };
    }
    const ends = () => this.isTupleEnd() || (endsAtIn && this.isName("in"));
    return this.#asTarget(this.parseItems(() => this.parsePrimary(), ends, false));
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
    throw this.error("only names can be assigned to", expression.line);
  }
}
