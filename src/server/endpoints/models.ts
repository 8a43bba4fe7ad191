/** `GET /v1/models` and `GET /v1/models/{id}`, in OpenAI's form, and Anthropic's for its clients. */
import { stateBytes } from "../../model/state.ts";
import type { App, AppContext, RequestLimits, ServedModel, ServerDeps } from "../deps.ts";
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

  app.get("/v1/models", (context) => context.json(toList(context, models.entries.flatMap(objectsOf))));

  app.get("/v1/models/:model{[^]+}", (context) => {
    const entry = models.entry(context.req.param("model"));
    const objects = objectsOf(entry);
    const object = objects.find(({ id }) => id === context.req.param("model")) ?? objects[0]!;
    return context.json(toShown(context, object));
  });
}

function singleModelRoutes(app: App, { model, options }: ServerDeps): void {
  app.get("/v1/models", (context) => {
    const data = [model.name, ...model.aliases].map((id) => toModelObject(id, model, options.limits));
    return context.json(toList(context, data));
  });

  // Names from the hub contain a slash, which clients send encoded or as it is.
  app.get("/v1/models/:model{[^]+}", (context) => {
    const id = context.req.param("model");
    checkModel(id, model);
    return context.json(toShown(context, toModelObject(id, model, options.limits)));
  });
}

interface ModelObject {
  readonly id: string;
  /** Unix seconds. */
  readonly created?: number;
  readonly context_length?: number;
  readonly max_output_tokens?: number;
}

/** Its clients name the version of the API. */
function isAnthropic({ req }: AppContext): boolean {
  return req.header("anthropic-version") !== undefined;
}

/** All of them are one page. */
function toList(context: AppContext, objects: readonly ModelObject[]) {
  const list = { object: "list", data: objects.map((object) => toShown(context, object)) };
  if (!isAnthropic(context)) return list;
  return { ...list, has_more: false, first_id: objects[0]?.id ?? null, last_id: objects.at(-1)?.id ?? null };
}

function toShown(context: AppContext, object: ModelObject) {
  if (!isAnthropic(context)) return object;
  return {
    ...object,
    type: "model",
    display_name: object.id,
    // At Anthropic, too, the epoch stands for a time that is not known.
    created_at: new Date((object.created ?? 0) * 1000).toISOString(),
    max_input_tokens: object.context_length ?? null,
    max_tokens: object.max_output_tokens ?? null,
  };
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
