/** The `response` object: what is fixed when a response begins, what has come of it so far, and both as OpenAI shows them. */
import type { GenerationUsage } from "../../generation/events.ts";
import { toResponseUsage } from "../openai/usage.ts";

/** JSON-serialisable, like all that a kept response is made of. */
export interface ResponseHead {
  readonly id: string;
  readonly itemId: string;
  readonly createdS: number;
  readonly model: string;
}

/** What a response keeps of its request; most of it the response object repeats. */
export interface ResponseSettings {
  readonly instructions: string | null;
  readonly previousResponseId: string | null;
  readonly maxOutputTokens: number | null;
  readonly temperature: number;
  readonly topP: number;
  readonly topLogprobs: number;
  readonly truncation: "auto" | "disabled";
  readonly store: boolean;
  readonly background: boolean;
  /** False: it reads its input, for others to go on from, and answers nothing. */
  readonly generates: boolean;
  readonly metadata: Readonly<Record<string, string>>;
  readonly parallelToolCalls: boolean;
  /** Default: "auto". */
  readonly toolChoice?: "auto" | "none";
  /** Never called: repeated for the client. Default: none. */
  readonly tools?: readonly object[];
}

export type ResponseStatus = "queued" | "in_progress" | "completed" | "incomplete" | "failed" | "cancelled";

export interface ResponseProgress {
  readonly status: ResponseStatus;
  /** Empty until the first token. */
  readonly output: readonly object[];
  readonly usage: GenerationUsage | null;
  readonly error: ResponseError | null;
  readonly completedAtS: number | null;
}

export interface ResponseError {
  readonly code: string;
  readonly message: string;
}

export function responseObject(head: ResponseHead, settings: ResponseSettings, progress: ResponseProgress) {
  return {
    id: head.id,
    object: "response",
    created_at: head.createdS,
    completed_at: progress.completedAtS,
    status: progress.status,
    background: settings.background,
    error: progress.error,
    incomplete_details: progress.status === "incomplete" ? { reason: "max_output_tokens" } : null,
    instructions: settings.instructions,
    max_output_tokens: settings.maxOutputTokens,
    metadata: settings.metadata,
    model: head.model,
    output: progress.output,
    parallel_tool_calls: settings.parallelToolCalls,
    previous_response_id: settings.previousResponseId,
    reasoning: { effort: null, summary: null },
    store: settings.store,
    temperature: settings.temperature,
    text: { format: { type: "text" } },
    tool_choice: settings.toolChoice ?? "auto",
    tools: settings.tools ?? [],
    top_logprobs: settings.topLogprobs,
    top_p: settings.topP,
    truncation: settings.truncation,
    usage: progress.usage ? toResponseUsage(progress.usage) : null,
  };
}

export type ResponseObject = ReturnType<typeof responseObject>;
