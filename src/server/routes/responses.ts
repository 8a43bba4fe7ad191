/** `POST /v1/responses`. The WebSocket of the same path is in `websocket/`. */
import { DenseMambaError } from "../../errors.ts";
import type { App } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { readJson } from "../middleware/body.ts";
import { errorResponse } from "../middleware/error-response.ts";
import { checkModel } from "../openai/models.ts";
import { type ResponseHead, ResponseStream } from "../openai/render-responses.ts";
import { responseBody, toResponseTask } from "../openai/responses.ts";
import { parseBody } from "../openai/validate.ts";
import { answerSse, boundsOf, generateFor } from "./serving.ts";

export function responseRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const schema = responseBody(bounds);
  const nowS = () => Math.floor(deps.nowMs() / 1000);

  app.post("/v1/responses", async (context) => {
    const body = parseBody(schema, await readJson(context, bounds.maxBodyBytes), deps.log);
    checkModel(body.model, deps.model);
    const task = toResponseTask(body, bounds);
    const head = responseHead(deps);
    const request = {
      ...task.request,
      ...(task.store ? { keepAs: { type: "response", id: head.id } as const } : {}),
    };
    if (task.stream) {
      return answerSse(context, deps, request, {
        eventLines: true,
        renderer: (emit) => new ResponseStream(head, task, nowS, emit),
      });
    }
    const stream = new ResponseStream(head, task, nowS, () => {});
    for await (const event of generateFor(context, deps, request)) {
      stream.push(event);
      if (event.type === "usage") context.set("usage", event.usage);
    }
    return context.json(stream.response());
  });

  app.get("/v1/responses", (context) => {
    context.header("upgrade", "websocket");
    context.header("allow", "POST");
    const message = "GET /v1/responses is the WebSocket: send an upgrade request, or POST a response";
    const response = errorResponse(context, new DenseMambaError("method_not_allowed", message));
    return new Response(response.body, { status: 426, headers: response.headers });
  });
}

export function responseHead(deps: ServerDeps): ResponseHead {
  const id = deps.newId();
  return {
    id: `resp_${id}`,
    itemId: `msg_${id}`,
    createdS: Math.floor(deps.nowMs() / 1000),
    model: deps.model.name,
  };
}
