/**
 * `/v1/sessions`: sessions are made explicitly, so that a mistyped `session_id` is a 404 and not a fresh conversation.
 * Chat and completions continue from one by naming it. A session can be forked, renamed, and moved to another server as a file.
 */
import { DenseMambaError } from "../../errors.ts";
import { stateBytes } from "../../model/state.ts";
import type { App, AppContext } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { hasBody, readBytes, readJson } from "../http/body.ts";
import { refuseMethod } from "../http/not-found.ts";
import { parsePage, toPage } from "../openai/paging.ts";
import { forkBody, renameBody, sessionBody, toSessionObject } from "../openai/sessions.ts";
import { parseBody } from "../openai/validate.ts";

const PAGE_BOUNDS = { defaultLimit: 100, maxLimit: 1000, defaultOrder: "desc" } as const;

export function sessionRoutes(app: App, deps: ServerDeps): void {
  const { generator, options, model, log } = deps;
  const { conversations } = generator;
  const maxImportBytes = stateBytes(model.manifest.state) + options.limits.maxHistoryBytes;
  const [creating, forking, renaming] = [sessionBody(), forkBody(), renameBody()];

  // An empty body is fine where all fields are optional.
  const readOptional = async (context: AppContext): Promise<unknown> =>
    hasBody(context) ? readJson(context, deps) : {};

  app.post("/v1/sessions", async (context) => {
    const body = parseBody(creating, await readOptional(context), log);
    const owner = context.get("owner");
    const session =
      body.previous_response_id === undefined
        ? await conversations.createSession(owner, body.session_id)
        : await conversations.forkResponse(owner, body.previous_response_id, body.session_id);
    return context.json(toSessionObject(session), 201);
  });

  app.get("/v1/sessions", async (context) => {
    const page = parsePage(context.req.query(), PAGE_BOUNDS, log);
    const sessions = await conversations.listSessions(context.get("owner"));
    return context.json(toPage(sessions.map(toSessionObject), page));
  });

  app.post("/v1/sessions/import", async (context) => {
    const { session_id } = parseBody(forking, context.req.query(), log);
    const bytes = await readBytes(context, deps, maxImportBytes);
    const session = await conversations.importSession(context.get("owner"), bytes, session_id).catch(asImportError);
    return context.json(toSessionObject(session), 201);
  });

  // No session has this name.
  app.all("/v1/sessions/import", (context) => refuseMethod(context, ["POST"]));

  app.get("/v1/sessions/:session_id", async (context) => {
    const session = await conversations.inspectSession(context.get("owner"), context.req.param("session_id"));
    return context.json(toSessionObject(session));
  });

  app.post("/v1/sessions/:session_id", async (context) => {
    const body = parseBody(renaming, await readJson(context, deps), log);
    const id = context.req.param("session_id");
    return context.json(toSessionObject(await conversations.renameSession(context.get("owner"), id, body.session_id)));
  });

  app.delete("/v1/sessions/:session_id", async (context) => {
    const id = context.req.param("session_id");
    await conversations.deleteSession(context.get("owner"), id);
    return context.json({ id, object: "session.deleted", deleted: true });
  });

  app.post("/v1/sessions/:session_id/fork", async (context) => {
    const body = parseBody(forking, await readOptional(context), log);
    const id = context.req.param("session_id");
    const session = await conversations.forkSession(context.get("owner"), id, body.session_id);
    return context.json(toSessionObject(session), 201);
  });

  app.get("/v1/sessions/:session_id/export", async (context) => {
    const id = context.req.param("session_id");
    const bytes = await conversations.exportSession(context.get("owner"), id);
    // A known session's id has no characters that a quoted file name could not hold; some systems refuse the colon.
    const name = `${id.replaceAll(":", "_")}.session`;
    return context.body(bytes as Uint8Array<ArrayBuffer>, 200, {
      "content-type": "application/octet-stream",
      "content-length": String(bytes.byteLength),
      "content-disposition": `attachment; filename="${name}"`,
      "x-content-type-options": "nosniff",
    });
  });
}

/** What is wrong with a file that a client sent is the client's fault, not the store's. */
function asImportError(error: unknown): never {
  if (!(error instanceof DenseMambaError) || error.code !== "invalid_snapshot") throw error;
  throw new DenseMambaError("invalid_import", error.message, { cause: error });
}
