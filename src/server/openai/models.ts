/** The served model on the wire, and the check that a request names it. */
import { DenseMambaError } from "../../errors.ts";
import { numericMode } from "../../model/manifest.ts";
import { stateBytes } from "../../model/state.ts";
import type { ServedModel } from "../deps.ts";

/** @throws `model_not_found`; a request without a model, or with an empty name, means the one that is served */
export function checkModel(requested: string | undefined, model: ServedModel): void {
  if (!requested || requested === model.name || model.aliases.includes(requested)) return;
  throw new DenseMambaError(
    "model_not_found",
    `the model ${JSON.stringify(requested.slice(0, 128))} does not exist here; this server has ${JSON.stringify(model.name)}`,
    { param: "model" },
  );
}

export function toModelObject(id: string, model: ServedModel) {
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

/** Changes whenever the same seed may give another text: another checkpoint or another numeric mode. */
export function systemFingerprint(model: ServedModel): string {
  return `fp_${model.manifest.modelHash.slice(0, 10)}_${model.manifest.precision}_${numericMode(model.manifest)}`;
}
