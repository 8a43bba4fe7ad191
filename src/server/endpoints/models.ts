/** `GET /v1/models` and `GET /v1/models/{id}` */
import { stateBytes } from "../../model/state.ts";
import type { App, RequestLimits, ServedModel, ServerDeps } from "../deps.ts";
import { checkModel } from "../openai/fields.ts";
import type { ModelEntry, SeveralModels } from "../several-models.ts";

export function modelRoutes(app: App, deps: ServerDeps, models?: SeveralModels): void {
  if (models === undefined) singleModelRoutes(app, deps);
  else severalModelRoutes(app, deps, models);
}

function severalModelRoutes(app: App, { options }: ServerDeps, models: SeveralModels): void {
  const objectsOf = (entry: ModelEntry) => {
    const model = entry.service?.deps.model;
    const names = [entry.name, ...(model?.aliases ?? [])];
    return names.map((id) => ({
      ...(model ? toModelObject(id, model, options.limits) : { id, object: "model", owned_by: "densemamba", root: id }),
      status: entry.state,
    }));
  };

  app.get("/v1/models", (context) => context.json({ object: "list", data: models.entries.flatMap(objectsOf) }));

  app.get("/v1/models/:model{[^]+}", (context) => {
    const entry = models.entry(context.req.param("model"));
    const objects = objectsOf(entry);
    return context.json(objects.find(({ id }) => id === context.req.param("model")) ?? objects[0]);
  });
}

function singleModelRoutes(app: App, { model, options }: ServerDeps): void {
  app.get("/v1/models", (context) => {
    const data = [model.name, ...model.aliases].map((id) => toModelObject(id, model, options.limits));
    return context.json({ object: "list", data });
  });

  // Names from the hub contain a slash, which clients send encoded or as it is.
  app.get("/v1/models/:model{[^]+}", (context) => {
    const id = context.req.param("model");
    checkModel(id, model);
    return context.json(toModelObject(id, model, options.limits));
  });
}

/**
 * Clients plan with a context length, which such a model does not have: they are told the longest
 * prompt that this server reads. What they send within it is served, and the answer is not part of
 * it.
 */
function toModelObject(id: string, model: ServedModel, { maxPromptTokens, maxOutputTokens }: RequestLimits) {
  const { manifest } = model;
  return {
    id,
    object: "model",
    created: Math.floor(model.loadedAtMs / 1000),
    owned_by: "densemamba",
    root: model.name,
    max_model_len: maxPromptTokens,
    context_length: maxPromptTokens,
    max_output_tokens: maxOutputTokens,
    densemamba: {
      family: manifest.family,
      precision: manifest.precision,
      model_hash: manifest.modelHash,
      num_parameters: manifest.numParameters,
      vocab_size: manifest.sizes.vocabSize,
      hidden_size: manifest.sizes.hiddenSize,
      num_layers: manifest.sizes.numLayers,
      dense_layers: manifest.sizes.denseLayers,
      state_bytes: stateBytes(manifest.state),
    },
  };
}
