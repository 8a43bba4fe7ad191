/** `/v1/responses` over HTTP: making, retrieving, following, cancelling and deleting. The WebSocket is in `websocket/`. */
import { DenseMambaError } from "../../errors.ts";
import type { App, AppContext } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { errorResponse } from "../http/error-answers.ts";
import { answerJson } from "../http/json-answer.ts";
import { streamSse } from "../http/sse.ts";
import { checkModel } from "../openai/models.ts";
import { parsePage, toPage } from "../openai/paging.ts";
import { parseBody } from "../openai/validate.ts";
import { toInputItemObject } from "../responses/input-items.ts";
import type { LiveResponse } from "../responses/live-response.ts";
import { responseBody, toResponseTask } from "../responses/request.ts";
import { parseRetrieve } from "../responses/response-query.ts";
import type { Responses } from "../responses/responses.ts";
import { follow, type Reading } from "../responses/subscription.ts";
import { boundsOf } from "./generate.ts";

const PAGE_BOUNDS = { defaultLimit: 20, maxLimit: 100, defaultOrder: "desc" } as const;

/** OpenAI's routes where an id would stand, and what to do here instead. */
const NOT_IDS = {
  input_tokens: "POST /tokenize counts the tokens of a text",
  compact: "a conversation's state doesn't grow: go on from its last response with previous_response_id",
} as const;

export function responseRoutes(app: App, deps: ServerDeps, responses: Responses): void {
  const bounds = boundsOf(deps);
  const schema = responseBody(bounds);

  app.post("/v1/responses", async (context) => {
    const body = parseBody(schema, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const task = toResponseTask(body, bounds);
    const { signal } = context.req.raw;
    const owner = context.get("owner");
    const requestId = context.get("requestId");
    const { live, reading } = await responses.create({ owner, task, signal, requestId, isFollowed: task.stream });
    if (task.stream) {
      const answer = await answerEvents(context, deps, reading, 0);
      context.set("usage", live.transcript.state.usage ?? undefined);
      return answer;
    }
    if (task.settings.background) {
      reading.leave();
      return answerJson(context, deps.options, live.transcript.response());
    }
    await untilEnded(live, reading, signal);
    if (live.error !== undefined) throw live.error;
    context.set("usage", live.transcript.state.usage ?? undefined);
    return answerJson(context, deps.options, live.transcript.response());
  });

  app.get("/v1/responses", (context) => {
    context.header("upgrade", "websocket");
    context.header("allow", "POST");
    const message = "GET /v1/responses is the WebSocket: send an upgrade request, or POST a response";
    return errorResponse(context, new DenseMambaError("upgrade_required", message));
  });

  for (const [name, instead] of Object.entries(NOT_IDS)) {
    app.all(`/v1/responses/${name}`, ({ req }) => {
      throw new DenseMambaError("route_not_found", `there is no route ${req.method} ${req.path}; ${instead}`);
    });
  }

  app.get("/v1/responses/:response_id", async (context) => {
    const [owner, id] = [context.get("owner"), context.req.param("response_id")];
    const lastEventId = context.req.header("last-event-id");
    const { stream, startingAfter } = parseRetrieve(context.req.query(), lastEventId);
    if (!stream) return answerJson(context, deps.options, await responses.retrieve(owner, id));
    const { reading, from } = await responses.read(owner, id, startingAfter);
    // An EventSource comes back until it is told that there is nothing more.
    if (lastEventId !== undefined && reading.isOver && from === reading.numEvents) {
      reading.leave();
      return context.body(null, 204);
    }
    return answerEvents(context, deps, reading, from);
  });

  app.delete("/v1/responses/:response_id", async (context) => {
    const id = context.req.param("response_id");
    await responses.delete(context.get("owner"), id);
    return context.json({ id, object: "response", deleted: true });
  });

  app.post("/v1/responses/:response_id/cancel", async (context) => {
    const response = await responses.cancel(context.get("owner"), context.req.param("response_id"));
    return answerJson(context, deps.options, response);
  });

  app.get("/v1/responses/:response_id/input_items", async (context) => {
    const page = parsePage(context.req.query(), PAGE_BOUNDS, deps.log);
    const items = await responses.inputItems(context.get("owner"), context.req.param("response_id"));
    return context.json(toPage(items.map(toInputItemObject), page));
  });
}

/** @throws `aborted` if the client goes away before the end */
async function untilEnded(live: LiveResponse, reading: Reading, signal: AbortSignal): Promise<void> {
  const leave = () => reading.leave();
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  await live.ended;
  signal.removeEventListener("abort", leave);
  if (signal.aborted) throw new DenseMambaError("aborted", "the client went away before its response was complete");
}

/** Streams a response's events from one on, until it has ended or the client goes away. */
function answerEvents(context: AppContext, deps: ServerDeps, reading: Reading, from: number): Promise<Response> {
  const { signal } = context.req.raw;
  const leave = () => reading.leave();
  signal.addEventListener("abort", leave, { once: true });
  if (signal.aborted) leave();
  // Who can't come back needs no numbers to come back with.
  const isResumable = reading.transcript.settings.store;
  return streamSse(context, deps.options, leave, async (stream) => {
    const emit = (event: { type: string; json: string }, sequenceNumber: number) =>
      stream.event(event.type, event.json, isResumable ? sequenceNumber : undefined);
    try {
      await follow(reading, from, emit, stream);
    } catch (error) {
      deps.log.debug({ err: error, requestId: context.get("requestId") }, "stream cut off");
    } finally {
      signal.removeEventListener("abort", leave);
    }
  });
}
