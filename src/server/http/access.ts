/**
 * Who may call. Without configured keys every request passes, whatever key it brings. With keys,
 * each request carries an owner, which tells keys apart without giving any of them away.
 *
 * Browser checks protect a server without keys from web pages. A page can send simple requests to
 * any address that its visitor can reach; if it rebinds its own name to that address, it can read
 * the answers too. Other clients pass.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { isIPv4 } from "node:net";
import { DenseMambaError } from "../../errors.ts";
import type { AppMiddleware, ServerOptions } from "../deps.ts";

/** A header of the request. */
type ReadHeader = (name: string) => string | undefined;

/**
 * Checks the key of a request.
 * @returns the owner: "" without configured keys.
 * @throws `invalid_api_key`
 */
export type KeyCheck = (header: ReadHeader) => string;

/** Where Azure's and Anthropic's clients put a key. */
const KEY_HEADERS = ["api-key", "x-api-key"] as const;
/**
 * A browser sends no headers of the page's own with a WebSocket. OpenAI's clients offer the key as
 * one of its subprotocols instead.
 */
const KEY_PROTOCOL = "openai-insecure-api-key.";

const OWNER_LENGTH = 16;

/** @param options whose keys may be replaced by others */
export function keyCheck(options: Pick<ServerOptions, "apiKeys">): KeyCheck {
  let { apiKeys } = options;
  let accepted = apiKeys.map(digest);
  return (header) => {
    if (apiKeys !== options.apiKeys) {
      apiKeys = options.apiKeys;
      accepted = apiKeys.map(digest);
    }
    if (accepted.length === 0) return "";
    const given = keysOf(header);
    if (given.length === 0) {
      const message =
        'this server needs an API key: send "Authorization: Bearer KEY", or the key as x-api-key or api-key';
      throw new DenseMambaError("invalid_api_key", message);
    }
    // Digests have one length, and all keys are compared, so that the time reveals nothing about
    // any of them.
    let known: Buffer | undefined;
    for (const key of given.map(digest)) {
      for (const expected of accepted) if (timingSafeEqual(key, expected)) known ??= key;
    }
    if (known === undefined) throw new DenseMambaError("invalid_api_key", "the API key is not one of this server's");
    return known.toString("hex").slice(0, OWNER_LENGTH);
  };
}

/** All of them count: a proxy may use one of the headers for itself. */
function keysOf(header: ReadHeader): string[] {
  const bearer = /^Bearer +(\S+) *$/i.exec(header("authorization") ?? "")?.[1];
  const protocols = header("sec-websocket-protocol")?.split(",") ?? [];
  const keys = [bearer, ...KEY_HEADERS.map(header), ...protocols.flatMap((name) => keysOfProtocol(name.trim()))];
  return keys.filter((key) => key !== undefined && key !== "") as string[];
}

/** A subprotocol has fewer characters than a key: others are percent-encoded. */
function keysOfProtocol(name: string): string[] {
  if (!isKeyProtocol(name)) return [];
  const key = name.slice(KEY_PROTOCOL.length);
  try {
    return [key, decodeURIComponent(key)];
  } catch {
    return [key];
  }
}

/** Whether a WebSocket's subprotocol is a key, which the server must not repeat. */
export function isKeyProtocol(name: string): boolean {
  return name.startsWith(KEY_PROTOCOL);
}

export function requireKey(check: KeyCheck): AppMiddleware {
  return async function checkKey(context, next) {
    context.set(
      "owner",
      check((name) => context.req.header(name)),
    );
    await next();
  };
}

function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}

/** What a browser says about the origin of a request. Pages can't change these headers. */
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
 * @param allowed in addition to this machine's own names; undefined or with `*`: any
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

/** @param allowed in addition to the server's own; with `*`: any */
export function originCheck(allowed: readonly string[]): BrowserCheck {
  return ({ host, origin, secFetchSite }) => {
    if (origin !== undefined && (allowed.includes("*") || allowed.includes(origin))) return;
    // A browser that sends this header has compared the origins itself; "none" means that the user
    // opened the address.
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

/**
 * A browser keeps pages from reading across origins, but requests that change something must not
 * even arrive.
 */
export function checkOrigin(check: BrowserCheck): AppMiddleware {
  return async function refuseOtherOrigins({ req }, next) {
    if (!SAFE_METHODS.has(req.method)) {
      const [host, origin, secFetchSite] = [req.header("host"), req.header("origin"), req.header("sec-fetch-site")];
      check({ host, origin, secFetchSite });
    }
    await next();
  };
}

/** Names that a machine uses for itself alone. */
export function isLoopback(host: string): boolean {
  const name = bareHost(host);
  const isName = name === "localhost" || name.endsWith(".localhost");
  return isName || name === "::1" || (isIPv4(name) && name.startsWith("127."));
}

/** Strips the port, the brackets of IPv6 and a final dot. */
function bareHost(host: string): string {
  const name = /^\[([^\]]*)\](?::\d*)?$/.exec(host)?.[1] ?? (host.split(":").length === 2 ? host.split(":")[0]! : host);
  return name.toLowerCase().replace(/\.$/, "");
}
