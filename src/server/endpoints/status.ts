/** `/health` (the process runs), `/ready` (the model answers), `/metrics`, and the index at `/`. */
import type { App, ServerDeps } from "../deps.ts";

export function statusRoutes(app: App, { checkStates, engine, metrics, model, stopping }: ServerDeps): void {
  app.get("/", (context) =>
    context.json({
      name: "densemamba",
      model: model.name,
      api: ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/models", "/v1/sessions"],
      websocket: "/v1/responses",
      docs: "/docs",
      openapi: "/openapi.yaml",
    }),
  );

  app.get("/health", (context) => context.json({ status: "ok" }));

  app.get("/ready", async (context) => {
    const { status } = engine;
    if (stopping.signal.aborted) {
      return context.json({ status: "stopping", model: model.name }, 503, { "retry-after": "2" });
    }
    switch (status.state) {
      case "ready":
        try {
          await checkStates();
        } catch (error) {
          const { message } = error as Error;
          return context.json({ status: "store_lost", model: model.name, error: message }, 503, { "retry-after": "2" });
        }
        return context.json({ status: status.state, model: model.name, runner: status.runner });
      case "recovering":
        return context.json({ status: status.state, model: model.name, error: status.error }, 503, {
          "retry-after": "2",
        });
      case "starting":
      case "closed":
        return context.json({ status: status.state, model: model.name }, 503, { "retry-after": "2" });
    }
  });

  app.get("/metrics", async (context) => {
    const text = await metrics.render();
    return context.body(text, 200, { "content-type": metrics.contentType });
  });
}
