/**
 * The families that can be served. A new one is a file here and a line below; if its blocks are new
 * too, they join `Architecture`, and neither the compiler's `lower.ts` nor `reference.ts` will
 * type-check without them.
 */
import type { ConfigJson } from "../config-json.ts";
import type { Family } from "./family.ts";
import { denseMamba, falconMamba, type MambaConfig, mamba } from "./mamba.ts";
import { mamba2Ssm, mambaSsm, mistralMamba2 } from "./mamba-ssm.ts";
import { type Mamba2Config, mamba2 } from "./mamba2.ts";
import { denseRetNet, denseRetNetAsLlama, type RetNetConfig, retNet } from "./retnet.ts";
import { type Rwkv7Config, rwkv7 } from "./rwkv7.ts";

/** Every size and switch of a model's blocks. Discriminated by `kind`. */
export type Architecture = MambaConfig | Mamba2Config | RetNetConfig | Rwkv7Config;

export const families: readonly Family<Architecture>[] = [
  denseMamba,
  // Before the family whose `model_type` it has too.
  mistralMamba2,
  mamba,
  mambaSsm,
  mamba2,
  mamba2Ssm,
  rwkv7,
  falconMamba,
  denseRetNet,
  denseRetNetAsLlama,
  retNet,
];

export function familyOf(json: ConfigJson): Family<Architecture> | undefined {
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
