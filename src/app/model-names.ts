/** Which models are served, and under which names. Quick: nothing is loaded yet. */
import { existsSync } from "node:fs";
import path from "node:path";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import { nameOf } from "../model/checkpoint.ts";
import { MANIFEST_FILE, readManifest } from "../model/manifest.ts";

/** Whether models may be unloaded: several, or a single one if an option says so. */
export function isPooled({ otherModels, keepAlive, modelsBytes }: Config): boolean {
  return otherModels.length > 0 || keepAlive !== undefined || modelsBytes !== undefined;
}

/**
 * The same configuration with a name for every model.
 * @throws `invalid_config` if two have one name
 */
export async function withModelNames(config: Config): Promise<Config> {
  const { model, modelName, otherModels } = config;
  const first = modelName[0] ?? (await ownName(model));
  const others = await Promise.all(
    otherModels.map(async ({ name, path }) => ({ name: name ?? (await ownName(path)), path })),
  );
  const paths = new Map([first, ...modelName].map((name) => [name, model]));
  for (const { name, path } of others) {
    const other = paths.get(name);
    if (other !== undefined) {
      const message = `two models have the name ${JSON.stringify(name)}: ${other} and ${path}; give one of them another name with --model NAME=${path}`;
      throw new DenseMambaError("invalid_config", message);
    }
    paths.set(name, path);
  }
  return { ...config, modelName: [first, ...modelName.slice(1)], otherModels: others };
}

async function ownName(model: string): Promise<string> {
  if (!existsSync(path.join(model, MANIFEST_FILE))) return nameOf(model);
  return readManifest(model).then(
    ({ name }) => name,
    () => nameOf(model),
  );
}
