/**
 * Where models are pulled from and cached. Reads the variables of Hugging Face's own tools, so that
 * one login and one cache serve both, and the usual variables of a proxy. Pure: `process.ts` passes in the environment.
 */
import path from "node:path";
import { DenseMambaError } from "../errors.ts";
import type { Environment } from "./load.ts";
import { expandHome, type FindHome, homeFor } from "./values.ts";

export interface HubSettings {
  /** Without a trailing slash. */
  readonly endpoint: string;
  readonly token: string | undefined;
  /** Holds a folder `models--<org>--<name>` for each repository. */
  readonly cacheDir: string;
  /** Use no network. */
  readonly offline: boolean;
  /** Undefined without one. */
  readonly proxy: ProxySettings | undefined;
}

/** URLs, which may hold passwords, and the hosts to be reached without a proxy. */
export interface ProxySettings {
  readonly httpProxy: string;
  readonly httpsProxy: string;
  readonly noProxy: string;
}

const DEFAULT_ENDPOINT = "https://huggingface.co";

export interface HubSources {
  readonly env: Environment;
  readonly findHome: FindHome;
  /** @returns undefined for a file that cannot be read */
  readonly readText: (file: string) => string | undefined;
}

/**
 * @throws `invalid_config` if HF_ENDPOINT or a proxy is not a URL, or a path cannot be resolved. The
 * token is never part of a message.
 */
export function parseHubSettings({ env, findHome, readText }: HubSources): HubSettings {
  // As huggingface_hub does, `~` and variables are expanded in each.
  const pathOf = (...names: readonly string[]): string | undefined => {
    const name = names.find((candidate) => env[candidate]);
    if (name === undefined) return undefined;
    const expanded = expandHome(expandVariables(env[name]!, env), findHome, name);
    if (!expanded.startsWith("~")) return expanded;
    throw new DenseMambaError(
      "invalid_config",
      `${name} must not name another user's home, ${JSON.stringify(env[name])} given`,
    );
  };
  const home = findHome();
  const cacheHome = pathOf("XDG_CACHE_HOME") ?? (home && path.join(home, ".cache"));
  const hfHome = pathOf("HF_HOME") ?? (cacheHome && path.join(cacheHome, "huggingface"));
  const tokenFile = pathOf("HF_TOKEN_PATH") ?? (hfHome && path.join(hfHome, "token"));
  const token = env.HF_TOKEN || env.HUGGING_FACE_HUB_TOKEN || (tokenFile && readText(tokenFile)) || "";
  return Object.freeze({
    endpoint: parseEndpoint(env.HF_ENDPOINT || DEFAULT_ENDPOINT),
    token: token.trim() || undefined,
    cacheDir:
      pathOf("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") ??
      path.join(hfHome ?? homeFor(findHome, "HF_HOME is not set"), "hub"),
    proxy: parseProxy(env),
    offline: /^(?:1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE || ""),
  });
}

/** `$NAME` and `${NAME}`; variables that are not set stay as they are. */
function expandVariables(given: string, env: Environment): string {
  return given.replaceAll(/\$(?:(\w+)|\{([^}]*)\})/g, (whole, plain, braced) => env[plain ?? braced] ?? whole);
}

/** As curl reads them: the name in small letters wins. */
function parseProxy(env: Environment): ProxySettings | undefined {
  const [httpProxy = "", httpsProxy = "", noProxy = ""] = ["http_proxy", "https_proxy", "no_proxy"].map((name) => {
    return env[name] ?? env[name.toUpperCase()];
  });
  for (const [name, url] of Object.entries({ HTTP_PROXY: httpProxy, HTTPS_PROXY: httpsProxy })) {
    if (url === "" || (URL.canParse(url) && /^https?:$/.test(new URL(url).protocol))) continue;
    // It may hold a password.
    throw new DenseMambaError("invalid_config", `${name} must be a URL such as http://proxy:3128, something else was`);
  }
  return httpProxy || httpsProxy ? { httpProxy, httpsProxy, noProxy } : undefined;
}

function parseEndpoint(endpoint: string): string {
  if (URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol)) return endpoint.replace(/\/+$/, "");
  throw new DenseMambaError(
    "invalid_config",
    `HF_ENDPOINT must be a URL such as ${DEFAULT_ENDPOINT}, ${JSON.stringify(endpoint)} given`,
  );
}
