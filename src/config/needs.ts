/** Options that mean nothing without another one: whoever gives the one alone has forgotten the other. */
import { type Config, type ConfigKey, configSchema } from "./schema.ts";

/**
 * @param origins where each option that was given comes from, e.g. `--store-bytes`
 * @param flagOf an option's flag
 * @returns a problem a line
 */
export function missingNeeds(
  config: Config,
  origins: ReadonlyMap<string, string>,
  flagOf: (key: ConfigKey) => string,
): string[] {
  return [...origins].flatMap(([key, origin]) => {
    const given = config[key as ConfigKey];
    // Who says that there is to be none of it needs nothing for it.
    if (given === false || given === 0) return [];
    return needsOf(key as ConfigKey).flatMap((needed) => {
      if (config[needed] === undefined) return [`${origin} needs ${flagOf(needed)}`];
      return config[needed] === 0 ? [`${origin} needs ${flagOf(needed)} above 0`] : [];
    });
  });
}

function needsOf(key: ConfigKey): readonly ConfigKey[] {
  const needs: unknown = configSchema.shape[key].meta()?.needs;
  return Array.isArray(needs) ? needs : [];
}
