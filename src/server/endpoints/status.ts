/**
 * `/health` (the process runs), `/ready` (the model answers), `/metrics`, `/version`, `/load`, and
 * the index at `/`.
 */
import type { App, ServerDeps } from "../deps.ts";
import type { SeveralModels } from "../several-models.ts";

export function statusRoutes(app: App, deps: ServerDeps, models?: SeveralModels): void {
  const { checkStates, draining, engine, metrics, model, stopping, version } = deps;
  app.get("/", (context) =>
    context.json({
      name: "densemamba",
      model: model.name,
      ...(models && { models: models.entries.map(({ name }) => name) }),
      api: ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/models", "/v1/sessions"],
      websocket: "/v1/responses",
      docs: "/docs",
      openapi: "/openapi.yaml",
    }),
  );

  app.get("/version", (context) => context.json({ version }));

  app.get("/load", (context) => {
    const loads = models?.services.map((service) => service.deps.engine.load) ?? [engine.load];
    const numRunning = loads.reduce((sum, load) => sum + load.numRunning, 0);
    const numWaiting = loads.reduce((sum, load) => sum + load.numWaiting, 0);
    return context.json({ server_load: numRunning + numWaiting, running: numRunning, waiting: numWaiting });
  });

  app.get("/health", (context) => context.json({ status: "ok" }));

  const readiness = async () => {
    const { status } = engine;
    if (stopping.signal.aborted) return { isReady: false, status: "stopping", model: model.name };
    if (draining.signal.aborted) return { isReady: false, status: "draining", model: model.name };
    const notReady = { isReady: false, status: status.state, model: model.name };
    const first = models?.entries[0];
    if (first?.isRefusing && first.state.value === "failed") {
      return { ...notReady, status: "failed", error: first.state.error };
    }
    const ready = { ...notReady, isReady: true };
    switch (status.state) {
      case "ready":
      case "sleeping":
        try {
          await checkStates();
        } catch (error) {
          return { ...notReady, status: "store_lost", error: (error as Error).message };
        }
        return status.state === "ready" ? { ...ready, runner: status.runner } : ready;
      case "recovering":
        return { ...notReady, error: status.error };
      case "starting":
      case "closed":
        return notReady;
    }
  };

  app.get("/ready", async (context) => {
    const { isReady, ...own } = await readiness();
    const states = models?.entries.map(({ name, state }) => [name, state] as const);
    const body = { ...own, ...(states && { models: Object.fromEntries(states) }) };
    return isReady ? context.json(body) : context.json(body, 503, { "retry-after": "2" });
  });

  app.get("/metrics", async (context) => {
    const text = await metrics.render();
    return context.body(text, 200, { "content-type": metrics.contentType });
  });
}
