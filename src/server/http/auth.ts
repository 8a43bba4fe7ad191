/**
 * Bearer keys. Without configured keys every request passes, also one with an empty or unknown key. What a key makes is the
 * key's own: requests carry an owner, which tells keys apart and gives none of them away.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { DenseMambaError } from "../../errors.ts";
import type { AppMiddleware } from "../context.ts";

/** Checks an Authorization header. @returns the owner: "" without configured keys. @throws `invalid_api_key` */
export type KeyCheck = (authorization: string | undefined) => string;

const OWNER_LENGTH = 16;

export function keyCheck(apiKeys: readonly string[]): KeyCheck {
  const accepted = apiKeys.map(digest);
  return (authorization) => {
    if (accepted.length === 0) return "";
    const key = /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1];
    if (key === undefined) {
      throw new DenseMambaError("invalid_api_key", 'this server needs an API key: send "Authorization: Bearer KEY"');
    }
    // Digests have one length, and all keys are compared: the time taken tells nothing about any of them.
    const given = digest(key);
    let known = false;
    for (const expected of accepted) known = timingSafeEqual(given, expected) || known;
    if (!known) throw new DenseMambaError("invalid_api_key", "the API key is not one of this server's");
    return given.toString("hex").slice(0, OWNER_LENGTH);
  };
}

export function requireKey(check: KeyCheck): AppMiddleware {
  return async function checkKey(context, next) {
    context.set("owner", check(context.req.header("authorization")));
    await next();
  };
}

function digest(key: string): Buffer {
  return createHash("sha256").update(key).digest();
}
