/** A position in a template's tokens: what both parsers read with. */
import { TemplateError } from "./error.ts";
import type { Token, TokenType } from "./lexer.ts";

export class TokenCursor {
  readonly #tokens: readonly Token[];
  #at = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  get current(): Token {
    return this.peek(0)!;
  }

  /** The token so many places ahead. */
  peek(distance: number): Token | undefined {
    return this.#tokens[this.#at + distance];
  }

  next(): Token {
    const token = this.current;
    if (token.type !== "eof") this.#at++;
    return token;
  }

  is(type: TokenType, value?: string): boolean {
    const { type: given, value: written } = this.current;
    return given === type && (value === undefined || value === written);
  }

  isOperator(value: string): boolean {
    return this.is("operator", value);
  }

  isName(...values: readonly string[]): boolean {
    return this.is("name") && values.includes(this.current.value);
  }

  skipIf(type: TokenType, value: string): boolean {
    const isThere = this.is(type, value);
    if (isThere) this.#at++;
    return isThere;
  }

  expect(type: TokenType, value?: string): Token {
    if (this.is(type, value)) return this.next();
    throw this.error(`expected ${value === undefined ? type : `'${value}'`}, got ${describeToken(this.current)}`);
  }

  error(message: string, line = this.current.line): TemplateError {
    return new TemplateError(message, line);
  }
}

export function describeToken({ type, value }: Token): string {
  if (type === "eof") return "the end of the template";
  return value === "" ? type.replace("_", " ") : `${type} '${value}'`;
}
