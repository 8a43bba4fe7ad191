/**
 * `/v1/personas`: states to begin from, which requests and sessions name. A file is an exported
 * session, or an RWKV-7's tuned state.
 */
import * as z from "zod";
import { stateBytes } from "../../model/state.ts";
import type { PersonaInfo } from "../../sessions/personas.ts";
import type { App, ServerDeps } from "../deps.ts";
import { readBytes } from "../http/body.ts";
import { personaName } from "../openai/fields.ts";
import { parsePage, toPage } from "../openai/paging.ts";
import { parseBody } from "../openai/validate.ts";
import { asImportError } from "./sessions.ts";

const nameInPath = z.object({ name: personaName() });

const PAGE_BOUNDS = { defaultLimit: 100, maxLimit: 1000, defaultOrder: "asc" } as const;

/** Beside a state and a history: headers of the file. */
const MAX_HEADER_BYTES = 2 ** 20;

export function personaRoutes(app: App, deps: ServerDeps): void {
  const { generator, options, model, log } = deps;
  const { personas } = generator.conversations;
  const { maxHistoryBytes, maxCheckpointBytes } = options.limits;
  // A tuned state may be wider than this model's states are.
  const maxBytes = 2 * stateBytes(model.manifest.state) + maxHistoryBytes + maxCheckpointBytes + MAX_HEADER_BYTES;

  app.get("/v1/personas", async (context) => {
    const page = parsePage(context.req.query(), PAGE_BOUNDS, log);
    const all = await personas.list(context.get("owner"));
    return context.json(
      toPage(
        all.map((persona) => toPersonaObject(persona, model.name)),
        page,
      ),
    );
  });

  app.put("/v1/personas/:name", async (context) => {
    const { name } = parseBody(nameInPath, context.req.param(), log);
    const bytes = await readBytes(context, deps, maxBytes);
    const persona = await personas.put(context.get("owner"), name, bytes).catch(asImportError);
    return context.json(toPersonaObject(persona, model.name));
  });

  app.get("/v1/personas/:name", async (context) => {
    const persona = await personas.inspect(context.get("owner"), context.req.param("name"));
    return context.json(toPersonaObject(persona, model.name));
  });

  app.delete("/v1/personas/:name", async (context) => {
    const id = context.req.param("name");
    await personas.delete(context.get("owner"), id);
    return context.json({ id, object: "persona.deleted", deleted: true });
  });
}

function toPersonaObject(persona: PersonaInfo, model: string) {
  return {
    id: persona.name,
    object: "persona",
    model,
    num_tokens: persona.numTokens,
    created_at: Math.floor(persona.createdAtMs / 1000),
    uploaded: !persona.isGiven,
  };
}
