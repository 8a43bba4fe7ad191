/** What the server sends and takes, as far as the page uses it. See `openapi.yaml`. */

export interface Model {
  readonly id: string;
  readonly max_output_tokens: number;
  /** Of a model that has been loaded. */
  readonly densemamba?: {
    readonly family: string;
    readonly precision: string;
    readonly num_parameters: number;
    readonly hidden_size: number;
    readonly num_layers: number;
    readonly state_bytes: number;
  };
}

export interface Session {
  readonly id: string;
  readonly model: string;
  readonly num_tokens: number;
  readonly state_bytes: number;
  readonly last_used_at: number;
  /** Null before the first turn. */
  readonly checkpoint: string | null;
  readonly busy: boolean;
}

export interface Checkpoint {
  readonly id: string;
  readonly name: string | null;
  readonly num_tokens: number;
  readonly current: boolean;
}

export interface Readiness {
  readonly status: "ready" | "sleeping" | "starting" | "recovering" | "stopping" | "closed" | "failed" | "store_lost";
  readonly error?: string;
}

export interface Load {
  readonly running: number;
  readonly waiting: number;
}

export interface Usage {
  readonly input_tokens: number;
  readonly input_tokens_details: { readonly cached_tokens: number };
  readonly output_tokens: number;
  readonly output_tokens_details: { readonly reasoning_tokens: number };
  readonly state_bytes: number;
}

interface TextPart {
  readonly text: string;
}

/** Of input and output alike. */
export type Item =
  | { readonly type: "message"; readonly role: string; readonly content: string | readonly TextPart[] }
  | { readonly type: "reasoning"; readonly content: readonly TextPart[] }
  | { readonly type: "function_call"; readonly call_id: string; readonly name: string; readonly arguments: string }
  | { readonly type: "function_call_output"; readonly call_id: string; readonly output: string };

export interface ResponseObject {
  readonly id: string;
  readonly status: "queued" | "in_progress" | "completed" | "incomplete" | "cancelled" | "failed";
  readonly error: { readonly message: string } | null;
  readonly model: string;
  readonly output: readonly Item[];
  readonly previous_response_id: string | null;
  /** Null until the end. */
  readonly usage: Usage | null;
}

/** The events that the page reads; all others have a type and a number too. */
export type ResponseEvent = { readonly sequence_number: number } & (
  | { readonly type: "response.created"; readonly response: ResponseObject }
  | { readonly type: "response.output_item.added"; readonly item: Item }
  | { readonly type: "response.output_text.delta"; readonly delta: string }
  | { readonly type: "response.reasoning_text.delta"; readonly delta: string }
  | { readonly type: "response.function_call_arguments.delta"; readonly delta: string }
  | {
      readonly type: "response.completed" | "response.incomplete" | "response.failed";
      readonly response: ResponseObject;
    }
);

export interface ErrorBody {
  readonly message: string;
  readonly code: string | null;
}

/** `stream_id` is that of the request. */
export type ServerMessage = { readonly stream_id?: string } & (
  | ResponseEvent
  | { readonly type: "error"; readonly status: number; readonly error: ErrorBody }
);

export function isFinal(
  event: ResponseEvent,
): event is Extract<ResponseEvent, { type: "response.completed" | "response.incomplete" | "response.failed" }> {
  return (
    event.type === "response.completed" || event.type === "response.incomplete" || event.type === "response.failed"
  );
}
