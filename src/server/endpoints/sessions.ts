/**
 * `/v1/sessions`. A session is created explicitly, so that a mistyped `session_id` is a 404 and not
 * a new conversation. Chat and completions continue a session by naming it. It can be forked,
 * renamed, and moved to another server as a file.
 */
import * as z from "zod";
import { DenseMambaError } from "../../errors.ts";
import { stateBytes } from "../../model/state.ts";
import type { SessionInfo } from "../../sessions/conversations.ts";
import type { App, AppContext, ServerDeps } from "../deps.ts";
import { hasBody, readBytes, readJson } from "../http/body.ts";
import { refuseMethod } from "../http/error-answers.ts";
import { checkModel, checkpointRef, personaName, sessionId } from "../openai/fields.ts";
import { parsePage, toPage } from "../openai/paging.ts";
import { invalid, parseBody } from "../openai/validate.ts";
import type { SeveralModels } from "../several-models.ts";

export const createBody = z.object({
  model: z.string().optional(),
  session_id: sessionId().optional(),
  previous_response_id: z.string().min(1).max(128).optional(),
  persona: personaName().optional(),
});
const importQuery = z.object({ session_id: sessionId().optional() });
export const forkBody = z.object({ session_id: sessionId().optional(), checkpoint: checkpointRef().optional() });
export const renameBody = z.object({ session_id: sessionId() });

const PAGE_BOUNDS = { defaultLimit: 100, maxLimit: 1000, defaultOrder: "desc" } as const;

const exportQuery = z.object({
  checkpoint: checkpointRef().optional(),
  checkpoints: z.enum(["true", "false"]).optional(),
});

/** @param models if there are several: their sessions are listed together */
export function sessionRoutes(app: App, deps: ServerDeps, models?: SeveralModels): void {
  const { generator, options, model, log } = deps;
  const { conversations } = generator;
  const { maxHistoryBytes, maxCheckpointBytes } = options.limits;
  const maxImportBytes = stateBytes(model.manifest.state) + maxHistoryBytes + maxCheckpointBytes;

  // An empty body is fine where all fields are optional.
  const readOptional = async (context: AppContext): Promise<unknown> =>
    hasBody(context) ? readJson(context, deps) : {};

  app.post("/v1/sessions", async (context) => {
    const body = parseBody(createBody, await readOptional(context), log);
    checkModel(body.model, model);
    const owner = context.get("owner");
    const { session_id: id, previous_response_id: response, persona } = body;
    if (persona !== undefined && response !== undefined) {
      throw invalid("persona", "can't be given together with previous_response_id");
    }
    const create = () => {
      if (persona !== undefined) return conversations.forkPersona(owner, persona, id);
      if (response !== undefined) return conversations.forkResponse(owner, response, id);
      return conversations.createSession(owner, id);
    };
    const session = await create();
    return context.json(toSessionObject(session, model.name), 201);
  });

  app.get("/v1/sessions", async (context) => {
    const page = parsePage(context.req.query(), PAGE_BOUNDS, log);
    const owner = context.get("owner");
    const isOfOne = models === undefined || context.req.query("model") !== undefined;
    const all = isOfOne ? [deps] : models.services.map((service) => service.deps);
    const lists = all.map(async (each) => {
      const sessions = await each.generator.conversations.listSessions(owner);
      return sessions.map((session) => ({ session, object: toSessionObject(session, each.model.name) }));
    });
    const sessions = (await Promise.all(lists)).flat();
    // As each of the lists.
    if (!isOfOne) sessions.sort((a, b) => a.session.lastUsedAtMs - b.session.lastUsedAtMs);
    return context.json(
      toPage(
        sessions.map(({ object }) => object),
        page,
      ),
    );
  });

  app.post("/v1/sessions/import", async (context) => {
    const { session_id } = parseBody(importQuery, context.req.query(), log);
    const bytes = await readBytes(context, deps, maxImportBytes);
    const session = await conversations.importSession(context.get("owner"), bytes, session_id).catch(asImportError);
    return context.json(toSessionObject(session, model.name), 201);
  });

  // No session has this name.
  app.all("/v1/sessions/import", (context) => refuseMethod(context, ["POST"]));

  app.get("/v1/sessions/:session_id", async (context) => {
    const session = await conversations.inspectSession(context.get("owner"), context.req.param("session_id"));
    return context.json(toSessionObject(session, model.name));
  });

  app.post("/v1/sessions/:session_id", async (context) => {
    const body = parseBody(renameBody, await readJson(context, deps), log);
    const id = context.req.param("session_id");
    const session = await conversations.renameSession(context.get("owner"), id, body.session_id);
    return context.json(toSessionObject(session, model.name));
  });

  app.delete("/v1/sessions/:session_id", async (context) => {
    const id = context.req.param("session_id");
    await conversations.deleteSession(context.get("owner"), id);
    return context.json({ id, object: "session.deleted", deleted: true });
  });

  app.post("/v1/sessions/:session_id/fork", async (context) => {
    const body = parseBody(forkBody, await readOptional(context), log);
    const id = context.req.param("session_id");
    const { checkpoint } = body;
    const session = await conversations.forkSession(context.get("owner"), id, body.session_id, { checkpoint });
    return context.json(toSessionObject(session, model.name), 201);
  });

  app.get("/v1/sessions/:session_id/export", async (context) => {
    const id = context.req.param("session_id");
    const { checkpoint, checkpoints } = parseBody(exportQuery, context.req.query(), log);
    const withCheckpoints = checkpoints === undefined ? undefined : checkpoints === "true";
    const bytes = await conversations.exportSession(context.get("owner"), id, { checkpoint, withCheckpoints });
    // An id has no characters that need quoting in a file name, but some systems refuse the colon.
    const name = `${id.replaceAll(":", "_")}.session`;
    return context.body(bytes as Uint8Array<ArrayBuffer>, 200, {
      "content-type": "application/octet-stream",
      "content-length": String(bytes.byteLength),
      "content-disposition": `attachment; filename="${name}"`,
      "x-content-type-options": "nosniff",
    });
  });
}

/** A broken file from a client is the client's fault, not the store's. */
export function asImportError(error: unknown): never {
  if (!(error instanceof DenseMambaError) || error.code !== "invalid_snapshot") throw error;
  throw new DenseMambaError("invalid_import", error.message, { cause: error });
}

export function toSessionObject(session: SessionInfo, model: string) {
  return {
    id: session.id,
    object: "session",
    model,
    created_at: Math.floor(session.createdAtMs / 1000),
    last_used_at: Math.floor(session.lastUsedAtMs / 1000),
    num_tokens: session.numTokens,
    position: session.position,
    state_bytes: session.stateBytes,
    expires_at: session.expiresAtMs === undefined ? null : Math.floor(session.expiresAtMs / 1000),
    checkpoint: session.checkpoint ?? null,
    busy: session.busy,
  };
}
