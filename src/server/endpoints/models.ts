/** `GET /v1/models` and `GET /v1/models/{id}` */
import type { App } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { checkModel, toModelObject } from "../openai/models.ts";

export function modelRoutes(app: App, { model }: ServerDeps): void {
  app.get("/v1/models", (context) => {
    const data = [model.name, ...model.aliases].map((id) => toModelObject(id, model));
    return context.json({ object: "list", data });
  });

  // Names from the hub have a slash, which clients send as it is or encoded.
  app.get("/v1/models/:model{[^]+}", (context) => {
    const id = context.req.param("model");
    checkModel(id, model);
    return context.json(toModelObject(id, model));
  });
}
