/**
 * `/v1/responses` over HTTP: create, retrieve, stream, cancel and delete. The WebSocket is in
 * `websocket/`.
 */
import { DenseMambaError } from "../../errors.ts";
import type { App, AppContext, ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { errorResponse, refuseMethod } from "../http/error-answers.ts";
import { answerJson } from "../http/json-answer.ts";
import { streamSse } from "../http/sse.ts";
import { boundsOf, checkModel } from "../openai/fields.ts";
import { parsePage, toNumber, toPage } from "../openai/paging.ts";
import { invalid, parseBody, show } from "../openai/validate.ts";
import type { LiveResponse } from "../responses/live-response.ts";
import { withItems } from "../responses/references.ts";
import { checkEventNumber, responseBody, toResponseTask } from "../responses/request.ts";
import { toInputItemObject } from "../responses/response.ts";
import type { Responses } from "../responses/responses.ts";
import { type Subscription, streamEvents } from "../responses/subscription.ts";
import type { RenderedEvent } from "../responses/transcript.ts";

const PAGE_BOUNDS = { defaultLimit: 20, maxLimit: 100, defaultOrder: "desc" } as const;

/** OpenAI's routes where an id would stand, and what to do here instead. */
const NOT_IDS = {
  compact: "a conversation's state doesn't grow: go on from its last response with previous_response_id",
} as const;

export function responseRoutes(app: App, deps: ServerDeps, responses: Responses): void {
  const bounds = boundsOf(deps);
  const schema = responseBody(bounds);

  const readTask = async (context: AppContext) => {
    const owner = context.get("owner");
    const findItems = (id: string) => responses.items(owner, id);
    const given = await withItems(await readJson(context, deps), findItems, bounds.maxBodyBytes);
    const body = parseBody(schema, given, deps.log);
    checkModel(body.model, deps.model);
    return toResponseTask(body, bounds);
  };

  app.post("/v1/responses", async (context) => {
    const task = await readTask(context);
    const { signal } = context.req.raw;
    const owner = context.get("owner");
    const requestId = context.get("requestId");
    const { live, subscription } = await responses.create({ owner, task, signal, requestId, isStreamed: task.stream });
    if (task.stream) {
      const answer = await answerEvents(context, deps, subscription, 0);
      context.set("usage", live.transcript.state.usage ?? undefined);
      context.set("errorCode", live.transcript.state.error?.code);
      return answer;
    }
    if (task.settings.background) {
      subscription.close();
      return answerJson(context, deps.options, live.transcript.response());
    }
    await untilEnded(live, subscription, signal);
    if (live.error !== undefined) throw live.error;
    context.set("usage", live.transcript.state.usage ?? undefined);
    return answerJson(context, deps.options, live.transcript.response());
  });

  app.post("/v1/responses/input_tokens", async (context) => {
    const task = await readTask(context);
    const numTokens = await responses.countInput(context.get("owner"), task, context.req.raw.signal);
    return context.json({ object: "response.input_tokens", input_tokens: numTokens });
  });

  // No response has this id.
  app.all("/v1/responses/input_tokens", (context) => refuseMethod(context, ["POST"]));

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
    const { subscription, from } = await responses.subscribe(owner, id, startingAfter);
    // An EventSource reconnects until it gets a 204.
    if (lastEventId !== undefined && subscription.isOver && from === subscription.numEvents) {
      subscription.close();
      return context.body(null, 204);
    }
    return answerEvents(context, deps, subscription, from);
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
async function untilEnded(live: LiveResponse, subscription: Subscription, signal: AbortSignal): Promise<void> {
  const unbind = closeOnAbort(subscription, signal);
  await live.ended;
  unbind();
  if (signal.aborted) throw new DenseMambaError("aborted", "the client went away before its response was complete");
}

/**
 * Streams the events of a response from number `from` on, until it has ended or the client goes
 * away.
 */
function answerEvents(
  context: AppContext,
  deps: ServerDeps,
  subscription: Subscription,
  from: number,
): Promise<Response> {
  const unbind = closeOnAbort(subscription, context.req.raw.signal);
  // Ids are for clients that can resume.
  const isResumable = subscription.transcript.settings.store;
  const close = () => subscription.close();
  return streamSse(context, deps.options, close, async (stream) => {
    const emit = (event: RenderedEvent, sequenceNumber: number) =>
      stream.event(event.type, event.json, isResumable ? sequenceNumber : undefined);
    try {
      await streamEvents(subscription, from, emit, stream);
    } catch (error) {
      deps.log.debug({ err: error, requestId: context.get("requestId") }, "stream cut off");
    } finally {
      unbind();
    }
  });
}

/** @returns removes the listener */
function closeOnAbort(subscription: Subscription, signal: AbortSignal): () => void {
  const close = () => subscription.close();
  signal.addEventListener("abort", close, { once: true });
  if (signal.aborted) close();
  return () => signal.removeEventListener("abort", close);
}

interface RetrieveQuery {
  readonly stream: boolean;
  /** The last event that the client has. Undefined: none. */
  readonly startingAfter: number | undefined;
}

/**
 * @param lastEventId the header of an EventSource that reconnects; it overrides the query, which is
 * that of the first request
 * @throws `invalid_value`
 */
function parseRetrieve(query: Readonly<Record<string, string>>, lastEventId: string | undefined): RetrieveQuery {
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
