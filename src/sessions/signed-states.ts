/**
 * States that clients keep: a snapshot in base64, signed, so that a server continues only what one
 * with the same secret has made. Knows no store.
 */
import { strict as assert } from "node:assert";
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import { type ConversationSnapshot, parseConversation } from "./conversation.ts";
import { decodeSnapshot, encodeSnapshot, type SnapshotModel } from "./stores/codec.ts";

const SIGNATURE_BYTES = 32;
/** Signed between two turns of the event loop: some milliseconds. */
const CHUNK_BYTES = 2 ** 21;

export class SignedStates {
  readonly #model: SnapshotModel;
  readonly #secret: string | Buffer;

  /** @param secret shared by servers that take each other's states. Default: this object's own. */
  constructor(model: SnapshotModel, secret: string | undefined) {
    this.#model = model;
    this.#secret = secret ?? randomBytes(SIGNATURE_BYTES);
  }

  /** @param snapshot with all of its tokens. @returns base64 */
  async sign(snapshot: ConversationSnapshot): Promise<string> {
    assert(snapshot.history === undefined, "a state that leaves the server has all of its tokens");
    const bytes = encodeSnapshot(snapshot);
    return Buffer.concat([await this.#signatureOf(bytes), bytes]).toString("base64");
  }

  /** @throws `invalid_import` */
  async open(text: string): Promise<ConversationSnapshot> {
    const signed = Buffer.from(text, "base64");
    const [given, bytes] = [signed.subarray(0, SIGNATURE_BYTES), signed.subarray(SIGNATURE_BYTES)];
    const expected = await this.#signatureOf(bytes);
    if (given.length !== SIGNATURE_BYTES || !timingSafeEqual(given, expected)) {
      throw invalid(
        `is not one that a server with this one's --state-secret has made, or has been altered or cut: of its ${signed.length} bytes the first ${SIGNATURE_BYTES} are no signature of the rest`,
      );
    }
    try {
      return parseConversation(decodeSnapshot(bytes, this.#model), this.#model.modelHash);
    } catch (error) {
      if (!(error instanceof DenseMambaError)) throw error;
      throw invalid(`cannot be continued here: ${error.message}`, error);
    }
  }

  async #signatureOf(bytes: Uint8Array): Promise<Buffer> {
    const hmac = createHmac("sha256", this.#secret);
    for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
      if (at > 0) await setImmediate();
      hmac.update(bytes.subarray(at, at + CHUNK_BYTES));
    }
    return hmac.digest();
  }
}

function invalid(what: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_import", `state ${what}`, { param: "state", cause });
}
