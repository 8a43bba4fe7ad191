/** What a client may say on the WebSocket: `response.create` with a body as of POST, and `response.cancel`. */
import { DenseMambaError } from "../../errors.ts";
import type { Log } from "../deps.ts";
import type { ResponseBody, responseBody } from "./responses.ts";
import { invalid, isRecord, parseBody, parseJson, show } from "./validate.ts";

const MAX_STREAM_ID_LENGTH = 128;

export interface ClientMessage {
  readonly type: unknown;
  /** The client's name for what belongs together: echoed on every answer, also on an error. */
  readonly streamId: string | undefined;
  readonly body: Readonly<Record<string, unknown>>;
}

export type ClientCommand =
  | { readonly type: "create"; readonly body: ResponseBody }
  /** `responseId` undefined: whichever is running. */
  | { readonly type: "cancel"; readonly responseId: unknown };

/** @throws `invalid_value` */
export function parseClientMessage(text: string): ClientMessage {
  const message = parseJson(text);
  if (!isRecord(message)) throw new DenseMambaError("invalid_value", `a message is an object; got ${show(message)}`);
  const { type, stream_id: streamId, ...body } = message;
  if (streamId === undefined || streamId === null) return { type, streamId: undefined, body };
  if (typeof streamId === "string" && streamId.length <= MAX_STREAM_ID_LENGTH) return { type, streamId, body };
  throw invalid("stream_id", `must be a string of at most ${MAX_STREAM_ID_LENGTH} characters; got ${show(streamId)}`);
}

/** @throws `invalid_value`, `unsupported_value` */
export function toCommand(
  { type, body }: ClientMessage,
  schema: ReturnType<typeof responseBody>,
  log: Log,
): ClientCommand {
  switch (type) {
    case "response.create":
      return { type: "create", body: parseBody(schema, body, log) };
    case "response.cancel":
      return { type: "cancel", responseId: body.response_id ?? undefined };
    default:
      throw invalid("type", `must be "response.create" or "response.cancel"; got ${show(type)}`);
  }
}

/** Names the lane on an event that has none. */
export function onLane(streamId: string | undefined): (json: string) => string {
  if (streamId === undefined) return (json) => json;
  const head = `{"stream_id":${JSON.stringify(streamId)},`;
  return (json) => head + json.slice(1);
}
