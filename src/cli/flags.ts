/** The options of the configuration as flags of a command, and parsers for other flags. */
import { type Command, InvalidArgumentError } from "commander";
import type { ParsedConfig } from "../config/load.ts";
import { readConfig } from "../config/process.ts";
import { type Config, type ConfigKey, configOptions } from "../config/schema.ts";

/** Adds those of `keys`, in the schema's order, and `--config`. */
export function addConfigOptions(command: Command, keys: readonly ConfigKey[]): Command {
  for (const { key, flag, argument, description, shownDefault, isRepeatable } of configOptions) {
    if (!keys.includes(key)) continue;
    const help = `${description} (default: ${shownDefault})`;
    // Values stay strings: config/ checks them all, so that all problems are reported together.
    if (isRepeatable) command.option(`${flag} ${argument}`, help, collect);
    else command.option(`${flag} ${argument}`.trim(), help);
  }
  return command.option(
    "--config <file>",
    "JSON file with any of the options, by their names in docs/configuration.md",
  );
}

/** @throws `invalid_config` */
export function configFrom(values: Readonly<Record<string, unknown>>): Config {
  return parsedFrom(values).config;
}

/** @throws `invalid_config` */
export function parsedFrom(values: Readonly<Record<string, unknown>>): ParsedConfig {
  const flags = Object.fromEntries(configOptions.map(({ key, flag }) => [key, values[attributeOf(flag)]]));
  return readConfig(flags, values.config === undefined ? undefined : String(values.config));
}

/** Each option's value and its source, as JSON; secrets are hidden. */
export function describeConfig({ options, origins }: ParsedConfig): string {
  const entries = configOptions.map(({ key, isSecret }) => {
    const value = isSecret && origins.has(key) ? "hidden" : (options[key] ?? null);
    return [key, { value: value === Number.POSITIVE_INFINITY ? "never" : value, from: origins.get(key) ?? "default" }];
  });
  return JSON.stringify(Object.fromEntries(entries), null, 2);
}

/** Commander's name for a flag's value: `--max-batch` → `maxBatch`. */
function attributeOf(flag: string): string {
  return flag.slice(2).replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

/** A parser for commander, of a flag that may be repeated. */
export function collect(value: string, earlier: readonly string[] = []): string[] {
  return [...earlier, value];
}

/** A parser for commander. */
export function numberBetween(min: number, max: number, kind: "integer" | "number" = "number") {
  return (text: string): number => {
    const value = /^\s*$/.test(text) ? Number.NaN : Number(text);
    if (value >= min && value <= max && (kind === "number" || Number.isInteger(value))) return value;
    throw new InvalidArgumentError(`Must be ${kind === "integer" ? "an integer" : "a number"} from ${min} to ${max}.`);
  };
}
