/**
 * Chat templates, rendered exactly as transformers renders them with jinja2, or refused.
 *
 * Our own engine and not @huggingface/jinja (0.5.11), whose lexer has no line numbers and no `raw`,
 * whose parser differs in precedence (`~`), comparisons and tests, and whose values are
 * JavaScript's: of 2,496 renderings of public templates 111 were different or refused, and none of
 * that can be fixed from outside. This one also bounds what a rendering costs.
 */
import type { Statement } from "./ast.ts";
import { compile } from "./compiler.ts";
import { TemplateError } from "./error.ts";
import { FILTER_NAMES } from "./filters.ts";
import { parse } from "./parser.ts";
import { type RenderLimits, Runtime } from "./runtime.ts";
import { fromJson, type Value } from "./values.ts";

export interface RenderOptions extends RenderLimits {
  readonly nowMs: number;
}

export class Template {
  readonly statements: readonly Statement[];
  readonly #run: ReturnType<typeof compile>;

  private constructor(statements: readonly Statement[]) {
    this.statements = statements;
    this.#run = compile(statements);
  }

  /** @throws TemplateError, with the line */
  static parse(source: string): Template {
    try {
      return new Template(parse(source));
    } catch (error) {
      throw withLine(error);
    }
  }

  /** The same template with only its first statements. */
  upTo(numStatements: number): Template {
    return new Template(this.statements.slice(0, numStatements));
  }

  /**
   * @param given variables, as from JSON @throws TemplateError, with the line; what `refill` throws
   */
  render(given: Readonly<Record<string, unknown>>, { nowMs, ...limits }: RenderOptions): string {
    const runtime = new Runtime(limits, nowMs, FILTER_NAMES);
    try {
      const variables = new Map<string, Value>();
      for (const [name, value] of Object.entries(given)) {
        if (value !== undefined) variables.set(name, fromJson(value, runtime));
      }
      this.#run({ runtime, variables });
      return runtime.out;
    } catch (error) {
      throw withLine(error, runtime.line);
    }
  }
}

/** Puts the line into the message. */
function withLine(error: unknown, line?: number): unknown {
  if (error instanceof RangeError && /call stack/.test(error.message)) {
    return withLine(new TemplateError("it nests too deeply"), line);
  }
  if (!(error instanceof TemplateError)) return error;
  const at = error.line ?? line;
  return new TemplateError(at === undefined ? error.message : `line ${at}: ${error.message}`, at);
}
