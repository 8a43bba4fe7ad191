/**
 * Chat templates, rendered as transformers renders them with jinja2, or refused: never otherwise.
 *
 * An engine of our own, and not @huggingface/jinja (0.5.11): that one's lexer keeps no lines and knows neither `raw` nor the
 * ends of lines, its parser has another precedence (`~`), one relation in a comparison and tests without arguments, and its
 * values are JavaScript's. Of 2,496 renderings of public templates 111 were different or refused, and there is no place to
 * put that right from outside. This one also knows what a rendering costs, and stops.
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
      throw told(error);
    }
  }

  /** The same without its statements from the n-th on. */
  upTo(numStatements: number): Template {
    return new Template(this.statements.slice(0, numStatements));
  }

  /** @param given variables, as from JSON @throws TemplateError, with the line; what `refill` throws */
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
      throw told(error, runtime.line);
    }
  }
}

/** With the line in its message. */
function told(error: unknown, line?: number): unknown {
  if (error instanceof RangeError && /call stack/.test(error.message)) {
    return told(new TemplateError("it nests too deeply"), line);
  }
  if (!(error instanceof TemplateError)) return error;
  const at = error.line ?? line;
  return new TemplateError(at === undefined ? error.message : `line ${at}: ${error.message}`, at);
}
