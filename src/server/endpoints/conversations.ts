/** `/v1/conversations`, OpenAI's: lists of items that responses continue and add to. */
import * as z from "zod";
import type { App, AppContext, ServerDeps } from "../deps.ts";
import { hasBody, readJson } from "../http/body.ts";
import { answerJson } from "../http/json-answer.ts";
import { parsePage, toPage } from "../openai/paging.ts";
import { parseBody } from "../openai/validate.ts";
import type { ConversationItems } from "../responses/conversation-items.ts";
import { itemList, metadata } from "../responses/request.ts";

export const conversationBody = z.object({ items: itemList().optional(), metadata: metadata().optional() });
export const conversationUpdateBody = z.object({ metadata: metadata().optional() });
export const itemsBody = z.object({ items: itemList(), include: z.unknown().optional() });

const PAGE_BOUNDS = { defaultLimit: 20, maxLimit: 100, defaultOrder: "desc" } as const;

export function conversationRoutes(app: App, deps: ServerDeps, conversations: ConversationItems): void {
  const { log, options } = deps;
  const ids = (context: AppContext) => [context.get("owner"), context.req.param("conversation_id")!] as const;

  app.post("/v1/conversations", async (context) => {
    const body = parseBody(conversationBody, hasBody(context) ? await readJson(context, deps) : {}, log);
    const items = { items: body.items ?? [], param: "items" };
    return context.json(await conversations.create(context.get("owner"), items, body.metadata ?? {}));
  });

  app.get("/v1/conversations/:conversation_id", async (context) => {
    return context.json(await conversations.retrieve(...ids(context)));
  });

  app.post("/v1/conversations/:conversation_id", async (context) => {
    const body = parseBody(conversationUpdateBody, await readJson(context, deps), log);
    return context.json(await conversations.update(...ids(context), body.metadata ?? {}));
  });

  app.delete("/v1/conversations/:conversation_id", async (context) => {
    const [owner, id] = ids(context);
    await conversations.delete(owner, id);
    return context.json({ id, object: "conversation.deleted", deleted: true });
  });

  app.get("/v1/conversations/:conversation_id/items", async (context) => {
    const page = parsePage(context.req.query(), PAGE_BOUNDS, log);
    return answerJson(context, options, toPage(await conversations.items(...ids(context)), page));
  });

  app.post("/v1/conversations/:conversation_id/items", async (context) => {
    const { items } = parseBody(itemsBody, await readJson(context, deps), log);
    const added = await conversations.addItems(...ids(context), { items, param: "items" });
    return answerJson(context, options, {
      object: "list",
      data: added,
      first_id: added[0]?.id ?? null,
      last_id: added.at(-1)?.id ?? null,
      has_more: false,
    });
  });

  app.get("/v1/conversations/:conversation_id/items/:item_id", async (context) => {
    return context.json(await conversations.item(...ids(context), context.req.param("item_id")));
  });

  app.delete("/v1/conversations/:conversation_id/items/:item_id", async (context) => {
    return context.json(await conversations.deleteItem(...ids(context), context.req.param("item_id")));
  });
}
