/** What is wrong with a template, or with what it was given. Also thrown for what jinja2 can do and this engine cannot. */
export class TemplateError extends Error {
  /** In the template. Set where the rendering ends, if not before. */
  line: number | undefined;

  constructor(message: string, line?: number) {
    super(message);
    this.name = "TemplateError";
    this.line = line;
  }
}

/** jinja2 can do it and this engine cannot: it says so rather than do something else. */
export function unsupported(what: string): TemplateError {
  return new TemplateError(`${what} is not supported here`);
}
