/**
 * Protects a server without API keys from web pages. A page can send simple requests to any address that its visitor can
 * reach, and by rebinding its own name to that address it can read the answers too. Clients other than browsers pass.
 */
import { isIPv4 } from "node:net";
import { DenseMambaError } from "../../errors.ts";
import type { AppMiddleware } from "../context.ts";

/** What a browser says about where a request comes from. Pages can't change these headers. */
export interface BrowserHeaders {
  readonly host: string | undefined;
  readonly origin: string | undefined;
  readonly secFetchSite: string | undefined;
}

/** @throws `host_not_allowed`, `origin_not_allowed` */
export type BrowserCheck = (headers: BrowserHeaders) => void;

const SAFE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);

/**
 * A page that has rebound its own name sends that name as the host.
 * @param allowed beside this machine's own names; undefined or with `*`: any
 */
export function hostCheck(allowed: readonly string[] | undefined): BrowserCheck {
  if (allowed === undefined || allowed.includes("*")) return () => {};
  const names = new Set(allowed.map((name) => bareHost(name)));
  return ({ host }) => {
    if (host === undefined) return; // of HTTP/1.0: no browser
    const name = bareHost(host);
    if (names.has(name) || isLoopback(name)) return;
    const message = `this server does not answer to the host ${JSON.stringify(host)}; --allowed-host adds a name`;
    throw new DenseMambaError("host_not_allowed", message);
  };
}

/** @param allowed beside the server's own; with `*`: any */
export function originCheck(allowed: readonly string[]): BrowserCheck {
  return ({ host, origin, secFetchSite }) => {
    if (origin !== undefined && (allowed.includes("*") || allowed.includes(origin))) return;
    // A browser that sends this header has compared the origins itself; "none" means that the user opened the address.
    if (secFetchSite === "same-origin" || secFetchSite === "none") return;
    if (secFetchSite === undefined) {
      if (origin === undefined) return; // no browser
      if (URL.canParse(origin) && new URL(origin).host === host) return;
    }
    const message = `the origin ${JSON.stringify(origin ?? "unknown")} is not allowed here; --cors-origin adds one`;
    throw new DenseMambaError("origin_not_allowed", message, { param: "origin" });
  };
}

export function checkHost(check: BrowserCheck): AppMiddleware {
  return async function refuseOtherHosts({ req }, next) {
    check({ host: req.header("host"), origin: undefined, secFetchSite: undefined });
    await next();
  };
}

/** The browser prevents pages from reading across origins; requests that change something must not even arrive. */
export function checkOrigin(check: BrowserCheck): AppMiddleware {
  return async function refuseOtherOrigins({ req }, next) {
    if (!SAFE_METHODS.has(req.method)) {
      const [host, origin, secFetchSite] = [req.header("host"), req.header("origin"), req.header("sec-fetch-site")];
      check({ host, origin, secFetchSite });
    }
    await next();
  };
}

/** Names by which only this machine refers to itself. */
export function isLoopback(host: string): boolean {
  const name = bareHost(host);
  const isName = name === "localhost" || name.endsWith(".localhost");
  return isName || name === "::1" || (isIPv4(name) && name.startsWith("127."));
}

/** Without a port, the brackets of IPv6 and a final dot. */
function bareHost(host: string): string {
  const name = /^\[([^\]]*)\](?::\d*)?$/.exec(host)?.[1] ?? (host.split(":").length === 2 ? host.split(":")[0]! : host);
  return name.toLowerCase().replace(/\.$/, "");
}
