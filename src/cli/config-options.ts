/** Options of the configuration as flags of a command, and back. */
import type { Command } from "commander";
import { type Config, type ConfigKey, configOptions, readConfig } from "../config.ts";

/** Adds those of `keys`, in the schema's order, and `--config`. */
export function addConfigOptions(command: Command, keys: readonly ConfigKey[]): Command {
  for (const option of configOptions.filter(({ key }) => keys.includes(key))) {
    const flags = `${option.flag} ${option.argument}`.trim();
    const description = `${option.description} (default: ${option.shownDefault})`;
    // Values stay texts: config.ts checks them all, so that all problems are told together.
    if (option.repeatable) {
      command.option(flags, description, (value: string, earlier: string[] = []) => [...earlier, value]);
    } else {
      command.option(flags, description);
    }
  }
  return command.option(
    "--config <file>",
    "JSON file with any of the options, by their names in docs/configuration.md",
  );
}

/** @throws `invalid_config` */
export function configFrom(values: Readonly<Record<string, unknown>>): Config {
  const flags = Object.fromEntries(configOptions.map(({ key, flag }) => [key, values[attributeOf(flag)]]));
  return readConfig(flags, values.config === undefined ? undefined : String(values.config));
}

/** Commander's name for a flag's value: `--max-batch` → `maxBatch`. */
function attributeOf(flag: string): string {
  return flag.slice(2).replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
