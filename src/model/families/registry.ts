/**
 * The families that can be served. A new one is a file here and a line below; if its blocks are new too, they join
 * `Architecture`, and the compiler's `lowering.ts` will not type-check without them.
 */
import type { Family } from "./family.ts";
import { denseMamba, mamba } from "./mamba.ts";

export const families: readonly Family[] = [denseMamba, mamba];

export function familyOf(modelType: unknown): Family | undefined {
  return families.find((family) => family.modelTypes.some((known) => known === modelType));
}

export function knownModelTypes(): string[] {
  return families.flatMap((family) => family.modelTypes);
}
