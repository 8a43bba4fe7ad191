/**
 * The messages of a WebSocket client: `response.create` with the body of a POST, `response.attach`
 * to stream a response that another connection created, and `response.cancel`.
 */
import { DenseMambaError } from "../../errors.ts";
import type { JsonBounds, Log } from "../deps.ts";
import { parseJson } from "../openai/json-reader.ts";
import { invalid, isRecord, parseBody, show } from "../openai/validate.ts";
import { hasReferences } from "../responses/references.ts";
import { checkEventNumber, type ResponseBody, type responseBody } from "../responses/request.ts";

const STREAM_ID = /^[A-Za-z0-9_.-]{1,256}$/;

export interface ClientMessage {
  readonly type: unknown;
  /** Echoed on every answer, including errors. */
  readonly streamId: string | undefined;
  readonly body: Readonly<Record<string, unknown>>;
}

/** What waits for its turn in a stream. */
export type ClientJob =
  | { readonly type: "create"; readonly body: ResponseBody }
  /**
   * Parsed in its turn: its input refers to items of responses that may have to end first, or there
   * are several models, of which it may have to find its own.
   */
  | { readonly type: "unparsed"; readonly body: ClientMessage["body"] }
  | { readonly type: "attach"; readonly responseId: string; readonly startingAfter: number | undefined };

/** `responseId` undefined: whichever response is running in the stream. */
export type ClientCommand = ClientJob | { readonly type: "cancel"; readonly responseId: unknown };

/** @throws `invalid_value`, `invalid_stream_id` */
export function parseClientMessage(json: Uint8Array, bounds: JsonBounds): ClientMessage {
  const message = parseJson(json, bounds);
  if (!isRecord(message)) throw new DenseMambaError("invalid_value", `a message is an object; got ${show(message)}`);
  const { type, stream_id: streamId, ...body } = message;
  if (streamId === undefined || streamId === null) return { type, streamId: undefined, body };
  if (typeof streamId === "string" && STREAM_ID.test(streamId)) return { type, streamId, body };
  throw new DenseMambaError(
    "invalid_stream_id",
    `stream_id must be 1 to 256 letters, digits, "_", "-" or "."; got ${show(streamId)}`,
    { param: "stream_id" },
  );
}

/**
 * @param schema undefined if it depends on the message
 * @throws `invalid_value`, `unsupported_value`
 */
export function toCommand(
  { type, body }: ClientMessage,
  schema: ReturnType<typeof responseBody> | undefined,
  log: Log,
): ClientCommand {
  switch (type) {
    case "response.create":
      return schema === undefined || hasReferences(body)
        ? { type: "unparsed", body }
        : { type: "create", body: parseBody(schema, body, log) };
    case "response.attach":
      return { type: "attach", ...parseAttach(body) };
    case "response.cancel":
      return { type: "cancel", responseId: body.response_id ?? undefined };
    default:
      throw invalid("type", `must be "response.create", "response.attach" or "response.cancel"; got ${show(type)}`);
  }
}

function parseAttach({ response_id: responseId, starting_after: startingAfter }: ClientMessage["body"]) {
  if (typeof responseId !== "string") throw invalid("response_id", `must be a string; got ${show(responseId)}`);
  const isGiven = startingAfter !== undefined && startingAfter !== null;
  return { responseId, startingAfter: isGiven ? checkEventNumber("starting_after", startingAfter) : undefined };
}

/** Adds the stream id to an event. */
export function withStreamId(streamId: string | undefined): (json: string) => string {
  if (streamId === undefined) return (json) => json;
  const head = `{"stream_id":${JSON.stringify(streamId)},`;
  return (json) => head + json.slice(1);
}
