/**
 * `/v1/sessions/{session_id}/checkpoints` and `…/rollback`: the states that a session can go back
 * to. A turn makes one; a request can name it.
 */
import * as z from "zod";
import type { CheckpointInfo } from "../../sessions/session-checkpoints.ts";
import type { App, ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { checkpointName, checkpointRef } from "../openai/fields.ts";
import { parsePage, toPage } from "../openai/paging.ts";
import { parseBody } from "../openai/validate.ts";
import { toSessionObject } from "./sessions.ts";

export const checkpointBody = z.object({ name: checkpointName(), checkpoint: checkpointRef().optional() });
export const rollbackBody = z.object({ to: checkpointRef() });

const PAGE_BOUNDS = { defaultLimit: 1000, maxLimit: 1000, defaultOrder: "asc" } as const;

export function checkpointRoutes(app: App, deps: ServerDeps): void {
  const { generator, model, log } = deps;
  const { conversations } = generator;

  app.get("/v1/sessions/:session_id/checkpoints", async (context) => {
    const page = parsePage(context.req.query(), PAGE_BOUNDS, log);
    const checkpoints = await conversations.listCheckpoints(context.get("owner"), context.req.param("session_id"));
    return context.json(toPage(checkpoints.map(toCheckpointObject), page));
  });

  app.post("/v1/sessions/:session_id/checkpoints", async (context) => {
    const { name, checkpoint } = parseBody(checkpointBody, await readJson(context, deps), log);
    const id = context.req.param("session_id");
    const named = await conversations.nameCheckpoint(context.get("owner"), id, name, checkpoint);
    return context.json(toCheckpointObject(named));
  });

  app.post("/v1/sessions/:session_id/rollback", async (context) => {
    const { to } = parseBody(rollbackBody, await readJson(context, deps), log);
    const id = context.req.param("session_id");
    const session = await conversations.rollBackSession(context.get("owner"), id, to);
    return context.json(toSessionObject(session, model.name));
  });
}

function toCheckpointObject(checkpoint: CheckpointInfo) {
  return {
    id: checkpoint.id,
    object: "session.checkpoint",
    name: checkpoint.name ?? null,
    parent: checkpoint.parent ?? null,
    num_tokens: checkpoint.numTokens,
    created_at: Math.floor(checkpoint.createdAtMs / 1000),
    current: checkpoint.isCurrent,
  };
}
