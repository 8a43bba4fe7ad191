/**
 * Where models are pulled from and kept, from the variables that Hugging Face's own tools read, so that one login and one
 * cache serve them and us. Pure: `config.ts` hands in the environment.
 */
import path from "node:path";
import { DenseMambaError } from "../errors.ts";

export interface HubSettings {
  /** Without a slash at its end. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** Holds a folder `models--<org>--<name>` for each repository. */
  readonly cacheDir: string;
  /** Ask the network for nothing. */
  readonly offline: boolean;
}

const DEFAULT_ENDPOINT = "https://huggingface.co";

export interface HubSources {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The user's home folder. */
  readonly home: string;
  /** Undefined for a file that cannot be read. */
  readonly readText: (file: string) => string | undefined;
}

/** @throws `invalid_config` if HF_ENDPOINT is no address. The token is never part of a message. */
export function parseHubSettings({ env, home, readText }: HubSources): HubSettings {
  const hfHome = env.HF_HOME || path.join(env.XDG_CACHE_HOME || path.join(home, ".cache"), "huggingface");
  const token =
    env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || readText(env.HF_TOKEN_PATH || path.join(hfHome, "token")) || "";
  return Object.freeze({
    endpoint: parseEndpoint(env.HF_ENDPOINT || DEFAULT_ENDPOINT),
    token: token.trim() || undefined,
    cacheDir: env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || path.join(hfHome, "hub"),
    offline: /^(?:1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? ""),
  });
}

function parseEndpoint(endpoint: string): string {
  if (URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol)) return endpoint.replace(/\/+$/, "");
  throw new DenseMambaError(
    "invalid_config",
    `HF_ENDPOINT must be an address such as ${DEFAULT_ENDPOINT}, ${JSON.stringify(endpoint)} given`,
  );
}
