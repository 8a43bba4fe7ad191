/**
 * The families that can be served. A new one is a file here and a line below; if its blocks are new too, they join
 * `Architecture`, and neither the compiler's `lowering.ts` nor `reference.ts` will type-check without them.
 */
import type { ConfigJson, Family } from "./family.ts";
import { denseMamba, falconMamba, mamba } from "./mamba.ts";
import { mambaSsm } from "./mamba-ssm.ts";
import { denseRetNet, denseRetNetAsLlama, retNet } from "./retnet.ts";

export const families: readonly Family[] = [
  denseMamba,
  mamba,
  mambaSsm,
  falconMamba,
  denseRetNet,
  denseRetNetAsLlama,
  retNet,
];

export function familyOf(json: ConfigJson): Family | undefined {
  return families.find(
    ({ modelTypes, recognizes }) =>
      modelTypes.some((known) => known === (json.model_type ?? null)) && (recognizes === undefined || recognizes(json)),
  );
}

/** Without those that a config shares with models that are not served. */
export function knownModelTypes(): string[] {
  return families
    .filter(({ recognizes }) => recognizes === undefined)
    .flatMap(({ modelTypes }) => modelTypes.filter((name) => name !== null));
}
