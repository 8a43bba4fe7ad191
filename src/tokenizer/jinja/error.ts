/**
 * An error of a template or of its variables. Also thrown for what jinja2 supports and this engine
 * does not.
 */
export class TemplateError extends Error {
  /** In the template. Set when rendering fails, if not before. */
  line: number | undefined;

  constructor(message: string, line?: number) {
    super(message);
    this.name = "TemplateError";
    this.line = line;
  }
}

/**
 * For what jinja2 supports and this engine does not: it is refused rather than rendered
 * differently.
 */
export function unsupported(what: string): TemplateError {
  return new TemplateError(`${what} is not supported here`);
}
