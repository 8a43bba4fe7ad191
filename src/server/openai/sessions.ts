/** Sessions on the wire: the bodies that create, fork and rename one, and the object that describes one. */
import * as z from "zod";
import type { SessionInfo } from "../../sessions/conversations.ts";
import { sessionId } from "./fields.ts";

export function sessionBody() {
  return z.object({
    session_id: sessionId().optional(),
    previous_response_id: z.string().min(1).max(128).optional(),
  });
}

export function forkBody() {
  return z.object({ session_id: sessionId().optional() });
}

export function renameBody() {
  return z.object({ session_id: sessionId() });
}

export function toSessionObject(session: SessionInfo) {
  return {
    id: session.id,
    object: "session",
    created_at: Math.floor(session.createdAtMs / 1000),
    last_used_at: Math.floor(session.lastUsedAtMs / 1000),
    num_tokens: session.numTokens,
    position: session.position,
    state_bytes: session.stateBytes,
    expires_at: session.expiresAtMs === undefined ? null : Math.floor(session.expiresAtMs / 1000),
    busy: session.busy,
  };
}
