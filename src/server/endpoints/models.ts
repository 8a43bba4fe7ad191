/** `GET /v1/models` and `GET /v1/models/{id}` */
import { stateBytes } from "../../model/state.ts";
import type { App, ServedModel, ServerDeps } from "../deps.ts";
import { checkModel } from "../openai/fields.ts";

export function modelRoutes(app: App, { model }: ServerDeps): void {
  app.get("/v1/models", (context) => {
    const data = [model.name, ...model.aliases].map((id) => toModelObject(id, model));
    return context.json({ object: "list", data });
  });

  // Names from the hub contain a slash, which clients send encoded or as it is.
  app.get("/v1/models/:model{[^]+}", (context) => {
    const id = context.req.param("model");
    checkModel(id, model);
    return context.json(toModelObject(id, model));
  });
}

function toModelObject(id: string, model: ServedModel) {
  const { manifest } = model;
  return {
    id,
    object: "model",
    created: Math.floor(model.loadedAtMs / 1000),
    owned_by: "densemamba",
    root: model.name,
    densemamba: {
      family: manifest.family,
      precision: manifest.precision,
      model_hash: manifest.modelHash,
      num_parameters: manifest.numParameters,
      vocab_size: manifest.sizes.vocabSize,
      num_layers: manifest.sizes.numLayers,
      dense_layers: manifest.sizes.denseLayers,
      state_bytes: stateBytes(manifest.state),
    },
  };
}
