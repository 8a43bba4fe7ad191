/** The query of `GET /v1/responses/{id}`, and the numbers of events that clients name, there and on the WebSocket. */
import { toNumber } from "../openai/paging.ts";
import { invalid, show } from "../openai/validate.ts";

export interface RetrieveQuery {
  readonly stream: boolean;
  /** The last event that the client has. Undefined: none. */
  readonly startingAfter: number | undefined;
}

/**
 * @param lastEventId the header of a browser's EventSource that comes back; it counts before the query it came with first
 * @throws `invalid_value`
 */
export function parseRetrieve(query: Readonly<Record<string, string>>, lastEventId: string | undefined): RetrieveQuery {
  const { stream, starting_after: startingAfter } = query;
  if (stream !== undefined && stream !== "true" && stream !== "false") {
    throw invalid("stream", `must be "true" or "false"; got ${show(stream)}`);
  }
  if (stream !== "true") {
    if (startingAfter !== undefined) throw invalid("starting_after", "is only allowed when stream is true");
    return { stream: false, startingAfter: undefined };
  }
  if (lastEventId !== undefined && lastEventId !== "") {
    return { stream: true, startingAfter: checkEventNumber("last-event-id", toNumber(lastEventId)) };
  }
  if (startingAfter === undefined) return { stream: true, startingAfter: undefined };
  return { stream: true, startingAfter: checkEventNumber("starting_after", toNumber(startingAfter)) };
}

/** @throws `invalid_value` */
export function checkEventNumber(param: string, value: unknown): number {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw invalid(param, `must be the sequence_number of an event, an integer from 0; got ${show(value)}`);
}
