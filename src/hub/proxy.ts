/**
 * `fetch` through a proxy. Node's own ignores the variables that name one, up to Node 22 in any
 * case.
 */
import type { ProxySettings } from "../config/hub.ts";

/** Loads its own HTTP client, which is only needed here. */
export async function fetchThrough(proxy: ProxySettings): Promise<typeof fetch> {
  const undici = await import("undici");
  const dispatcher = new undici.EnvHttpProxyAgent(proxy);
  // The same interface, of two versions of one library.
  const proxied = undici.fetch as unknown as (input: unknown, init: object) => Promise<Response>;
  return (input, init) => proxied(input, { ...init, dispatcher });
}
