/**
 * Entry of the process that renders chat templates, one job after another. Ends with its parent.
 */
import { ChatProgram, tookTooLong, type Variables } from "./chat-program.ts";
import { TemplateError } from "./jinja/error.ts";

export interface RenderJob {
  readonly source: string;
  /** Render only this many of the template's statements. */
  readonly numStatements?: number;
  readonly variables: Variables;
  readonly nowMs: number;
  readonly timeoutMs: number;
  readonly maxLength: number;
}

export type RenderReply = { readonly text: string } | { readonly error: string };

/** The clock is read each time this many steps are used up. */
const STEPS = 20_000;

/** The last parsed template: the model's own is the same each time. */
let last: { readonly source: string; readonly program: ChatProgram } | undefined;

function render({ source, numStatements, variables, nowMs, timeoutMs, maxLength }: RenderJob): string {
  const deadlineMs = performance.now() + timeoutMs;
  const refill = () => {
    if (performance.now() > deadlineMs) throw new TemplateError(tookTooLong(timeoutMs));
    return STEPS;
  };
  if (last?.source !== source) last = { source, program: new ChatProgram(source) };
  return last.program.render(variables, { refill, maxLength, nowMs }, numStatements);
}

function reply(job: RenderJob): RenderReply {
  try {
    return { text: render(job) };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

process.on("message", (job: RenderJob) => process.send?.(reply(job)));
process.on("disconnect", () => process.exit());
// A signal to the whole process group is for the server, which may still render while it drains.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {});
