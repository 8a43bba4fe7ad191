/**
 * A parsed chat template. Finds out whether it expects contents as lists of parts, as templates of
 * multimodal models do.
 */
import { type RenderOptions, Template } from "./jinja/template.ts";

export type Variables = Readonly<Record<string, unknown>>;

/** Bound on the steps and the output of the probes. */
const PROBE_STEPS = 20_000;
const PROBE = "densemamba";

/** Rendering takes more steps than this thread should spend. */
export class OutOfSteps extends Error {}

export class ChatProgram {
  readonly template: Template;
  readonly #wantsParts: boolean;
  /** By their number of statements. */
  readonly #beginnings = new Map<number, Template>();

  /** @throws TemplateError if it is malformed, or asks for what is not supported */
  constructor(source: string) {
    this.template = Template.parse(source);
    this.#wantsParts = !show(this.template, PROBE).includes(PROBE) && showsPart(show(this.template, asParts(PROBE)));
  }

  /**
   * @param numStatements render only this many of the template's statements
   * @throws TemplateError, what `refill` throws
   */
  render(variables: Variables, options: RenderOptions, numStatements?: number): string {
    const template = numStatements === undefined ? this.template : this.#beginning(numStatements);
    return template.render(this.#wantsParts ? withParts(variables) : variables, options);
  }

  #beginning(numStatements: number): Template {
    const beginning = this.#beginnings.get(numStatements) ?? this.template.upTo(numStatements);
    this.#beginnings.set(numStatements, beginning);
    return beginning;
  }
}

/** What the template renders of a message with this content. */
function show(template: Template, content: unknown): string {
  const variables = {
    messages: [{ role: "user", content }],
    tools: null,
    documents: null,
    add_generation_prompt: false,
  };
  try {
    return template.render(variables, { refill: once(PROBE_STEPS), maxLength: PROBE_STEPS, nowMs: 0 });
  } catch {
    return "";
  }
}

/** Whether the text is rendered without the list around it. */
function showsPart(text: string): boolean {
  return text.includes(PROBE) && !/["']text["']/.test(text);
}

/** For `refill`: gives this many steps once, and throws OutOfSteps when asked for more. */
export function once(steps: number): () => number {
  let isFirst = true;
  return () => {
    if (!isFirst) throw new OutOfSteps();
    isFirst = false;
    return steps;
  };
}

export function tookTooLong(timeoutMs: number): string {
  return `it takes longer than ${timeoutMs} ms to render`;
}

function asParts(content: string) {
  return [{ type: "text", text: content }];
}

function withParts(variables: Variables): Variables {
  const messages = variables.messages as readonly { readonly content: unknown }[];
  const converted = messages.map((message) =>
    typeof message.content === "string" ? { ...message, content: asParts(message.content) } : message,
  );
  return { ...variables, messages: converted };
}
