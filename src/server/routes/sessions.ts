/**
 * `/v1/sessions`: sessions are made explicitly, so that a mistyped `session_id` is a 404 and not a fresh conversation.
 * Chat and completions go on from one by naming it.
 */
import type { App } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { readJson } from "../middleware/body.ts";
import { sessionBody, toSessionObject } from "../openai/sessions.ts";
import { parseBody } from "../openai/validate.ts";

export function sessionRoutes(app: App, { generator, options, log }: ServerDeps): void {
  const { conversations } = generator;
  const schema = sessionBody();

  app.post("/v1/sessions", async (context) => {
    // An empty body is fine: it asks for a session under an id of our choice.
    const empty = context.req.header("content-type") === undefined || context.req.header("content-length") === "0";
    const body = parseBody(schema, empty ? {} : await readJson(context, options.limits.maxBodyBytes), log);
    return context.json(toSessionObject(await conversations.createSession("", body.session_id)), 201);
  });

  app.get("/v1/sessions", async (context) => {
    const sessions = await conversations.listSessions("");
    return context.json({ object: "list", data: sessions.map(toSessionObject) });
  });

  app.get("/v1/sessions/:session_id", async (context) => {
    return context.json(toSessionObject(await conversations.inspectSession("", context.req.param("session_id"))));
  });

  app.delete("/v1/sessions/:session_id", async (context) => {
    const id = context.req.param("session_id");
    await conversations.deleteSession("", id);
    return context.json({ id, object: "session.deleted", deleted: true });
  });
}
