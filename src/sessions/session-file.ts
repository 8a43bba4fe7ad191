/**
 * A session as a file: the segments of its history, the first one first, then its snapshot, each as
 * the codec has it. A file is untrusted: what could not be continued is refused with the bound and
 * the value, and nothing blocks the event loop or is unpacked beyond its bounds. Knows no owners
 * and no stores.
 */
import { setImmediate } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { type StateSpec, stateBytes, tensorBytes } from "../model/state.ts";
import { type ConversationSnapshot, parseConversation } from "./conversation.ts";
import { MAX_SEGMENT_TOKENS, spansOf } from "./history.ts";
import { countSpanTokens } from "./messages.ts";
import { decodeUntrusted, encodeSnapshot, readHeader } from "./stores/codec.ts";
import { countTokens, type HistoryRef, historyTokens, type Snapshot, withIds } from "./stores/snapshot.ts";

export interface ImportBounds {
  readonly manifest: Pick<Manifest, "modelHash" | "state" | "sizes">;
  /** Tokens that the state may not have read. */
  readonly maxUnreadTokens: number;
}

/** The history's key in a file, where it is what comes before. */
const KEY_IN_FILE = "-";
/** In the snapshot, besides unread ones. No real session comes near this or the next bounds. */
const MAX_SNAPSHOT_TOKENS = 2 ** 18;
const MAX_JSON_BYTES = 4 * 2 ** 20;
const MAX_JSON_DEPTH = 8;
/** Objects, lists, and members of both. */
const MAX_JSON_MEMBERS = 100_000;
const MAX_SPANS = 4096;
/** Segments and the snapshot: each takes more in a store than in a file. */
const MAX_PIECES = 8192;
/** Of all pieces together. */
const MAX_ALL_JSON_BYTES = 64 * 2 ** 20;
/** Of a state's numbers, in f32. Those of trained models stay below 2^16. */
const MAX_EXPONENT = 50;
/** Checked between two turns of the event loop. */
const BYTES_AT_ONCE = 2 ** 20;
const NUMBERS_AT_ONCE = 2 ** 20;

/** @param segments of the snapshot's history, the first one first */
export async function writeSessionFile(
  snapshot: ConversationSnapshot,
  segments: readonly Snapshot[],
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for (const { history, isShared: _, ...rest } of [...segments, snapshot]) {
    const ref = history && { history: { key: KEY_IN_FILE, numTokens: history.numTokens } };
    pieces.push(encodeSnapshot({ ...rest, ...ref }));
    await setImmediate();
  }
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

export class SessionFile {
  /** Its history is not stored yet. */
  readonly snapshot: ConversationSnapshot;
  readonly #bytes: Uint8Array;
  readonly #bounds: ImportBounds;

  private constructor(bytes: Uint8Array, bounds: ImportBounds, snapshot: ConversationSnapshot) {
    this.#bytes = bytes;
    this.#bounds = bounds;
    this.snapshot = snapshot;
  }

  /**
   * Checks all of it.
   * @param bytes referenced by the result: must not be changed afterwards
   * @throws `invalid_snapshot`
   */
  static async read(bytes: Uint8Array, bounds: ImportBounds): Promise<SessionFile> {
    let numTokens = 0;
    let numSpanTokens = 0;
    for await (const { piece, isLast } of piecesOf(bytes, bounds)) {
      const numBefore = historyTokens(piece.history);
      if (numBefore !== numTokens) {
        throw invalid(`continues after ${numBefore} tokens; ${numTokens} come before it`);
      }
      numTokens = countTokens(piece);
      checkIds(piece.tokenIds, bounds);
      if (isLast) return new SessionFile(bytes, bounds, await checkSnapshot(piece, numSpanTokens, bounds));
      numSpanTokens += checkSegment(piece);
    }
    throw new Error("a file has at least one piece");
  }

  /**
   * Puts the history's segments.
   * @param put stores a segment and returns its key
   * @returns the snapshot, with a reference to them
   */
  async importSegments(put: (segment: Snapshot) => Promise<string>): Promise<ConversationSnapshot> {
    if (this.snapshot.history === undefined) return this.snapshot;
    let history: HistoryRef | undefined;
    let seenIds: Uint8Array = new Uint8Array(0);
    for await (const { piece, isLast } of piecesOf(this.#bytes, this.#bounds)) {
      if (isLast) break;
      const { expiresAtMs: _, ...segment } = piece;
      const key = await put({ ...segment, ...(history && { history }) });
      history = { key, numTokens: countTokens(piece) };
      seenIds = withIds(seenIds, piece.tokenIds);
    }
    return { ...this.snapshot, history: { ...history!, seenIds } };
  }
}

async function* piecesOf(bytes: Uint8Array, { manifest, maxUnreadTokens }: ImportBounds) {
  const model = { modelHash: manifest.modelHash, stateBytes: stateBytes(manifest.state) };
  let numPieces = 0;
  let numJsonBytes = 0;
  const checkJson = async (json: Buffer) => {
    numJsonBytes += json.length;
    if (numJsonBytes > MAX_ALL_JSON_BYTES) throw invalid(`holds more than ${MAX_ALL_JSON_BYTES} bytes of messages`);
    await checkNesting(json);
  };
  for (let at = 0; at === 0 || at < bytes.length; ) {
    if (++numPieces > MAX_PIECES) throw invalid(`has more than ${MAX_PIECES} pieces; no more are read`);
    const rest = Buffer.from(bytes.buffer, bytes.byteOffset + at, bytes.byteLength - at);
    const length = readHeader(rest)?.bytes ?? rest.length;
    const isLast = length >= rest.length;
    const piece = await decodeUntrusted(rest.subarray(0, length), model, {
      maxTokens: isLast ? MAX_SNAPSHOT_TOKENS + maxUnreadTokens : MAX_SEGMENT_TOKENS,
      maxConversationBytes: MAX_JSON_BYTES,
      checkJson,
    });
    if (isLast === (piece.isSegment ?? false)) {
      throw invalid(isLast ? "ends within its history" : "continues after its end");
    }
    yield { piece, isLast };
    at += length;
  }
}

/** Before parsing: nested JSON, or many small values, take far more memory than their bytes. */
async function checkNesting(json: Buffer): Promise<void> {
  let depth = 0;
  let numMembers = 0;
  let isInString = false;
  let pauseAt = BYTES_AT_ONCE;
  for (let i = 0; i < json.length; i++) {
    if (i >= pauseAt) {
      pauseAt += BYTES_AT_ONCE;
      await setImmediate();
    }
    const byte = json[i];
    if (isInString) {
      if (byte === BACKSLASH) i++;
      else if (byte === QUOTE) isInString = false;
    } else if (byte === QUOTE) isInString = true;
    else if (byte === COMMA) numMembers++;
    else if (byte === OPEN_BRACKET || byte === OPEN_BRACE) {
      numMembers++;
      if (++depth > MAX_JSON_DEPTH) throw invalid(`nests its messages more than ${MAX_JSON_DEPTH} levels deep`);
    } else if (byte === CLOSE_BRACKET || byte === CLOSE_BRACE) depth--;
  }
  if (numMembers <= MAX_JSON_MEMBERS) return;
  throw invalid(`has ${numMembers} values in its messages; at most ${MAX_JSON_MEMBERS} are read in one piece`);
}

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE, CLOSE_BRACE] = [0x5b, 0x5d, 0x7b, 0x7d];

/** @returns how many tokens its spans cover */
function checkSegment(segment: Snapshot): number {
  if (segment.state.length > 0) throw invalid("holds a state before its end");
  const spans = spansOf(segment);
  checkNumSpans(spans.length);
  return countSpanTokens(spans);
}

async function checkSnapshot(
  piece: Snapshot,
  numSegmentSpanTokens: number,
  { manifest, maxUnreadTokens }: ImportBounds,
): Promise<ConversationSnapshot> {
  const snapshot = parseConversation(piece, manifest.modelHash);
  const { position, sampler, conversation } = snapshot;
  const { spans, numPreambleTokens, numSampled = 0 } = conversation;
  checkNumSpans(spans.length);
  const numTokens = countTokens(snapshot);
  const numSpanTokens = numSegmentSpanTokens + countSpanTokens(spans);
  if (numPreambleTokens > numTokens || numSpanTokens > numTokens) {
    throw invalid(
      `claims ${numPreambleTokens} tokens before its messages and ${numSpanTokens} in them; it holds ${numTokens}`,
    );
  }
  if (numTokens > 0 && position === 0) throw invalid(`holds ${numTokens} tokens, of which its state has read none`);
  const numUnread = numTokens - position;
  if (numUnread > maxUnreadTokens) {
    throw invalid(
      `has ${numUnread} tokens that its state has not read; at most ${maxUnreadTokens} may be left to read`,
    );
  }
  for (const [what, count] of [
    ["draws of random numbers", sampler?.numDraws ?? 0],
    ["sampled tokens", numSampled],
  ] as const) {
    if (count > numTokens) throw invalid(`claims ${count} ${what}; it holds ${numTokens} tokens`);
  }
  await checkNumbers(snapshot.state, manifest.state);
  return snapshot;
}

function checkNumSpans(count: number): void {
  if (count > MAX_SPANS) throw invalid(`holds ${count} spans of messages in one piece; at most ${MAX_SPANS} are read`);
}

function checkIds(tokenIds: readonly number[], { manifest }: ImportBounds): void {
  const { vocabSize } = manifest.sizes;
  const wrong = tokenIds.findIndex((id) => id >= vocabSize);
  if (wrong === -1) return;
  throw invalid(`holds token id ${tokenIds[wrong]}; those of this model are 0 to ${vocabSize - 1}`);
}

/**
 * All numbers of a state, f32 or f16, must be finite, and small enough for sums of their squares to
 * be: what is not finite spreads, and every answer would fail.
 */
async function checkNumbers(state: Uint8Array, spec: StateSpec): Promise<void> {
  if (state.length === 0) return;
  let at = 0;
  for (const tensor of spec) {
    const end = at + tensorBytes(tensor);
    // A number's last two bytes have its exponent.
    const [numberBytes, tooLarge] = tensor.dtype === "f16" ? [2, 0x7c00] : [4, (127 + MAX_EXPONENT) << 7];
    while (at < end) {
      const until = Math.min(end, at + NUMBERS_AT_ONCE * numberBytes);
      for (; at < until; at += numberBytes) {
        const high = state[at + numberBytes - 2]! | (state[at + numberBytes - 1]! << 8);
        if ((high & 0x7fff) < tooLarge) continue;
        throw invalid(
          `holds a number in its state's tensor ${tensor.name} that is not finite, or not below 2^${MAX_EXPONENT}`,
        );
      }
      await setImmediate();
    }
  }
}

function invalid(what: string): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", `the snapshot ${what}`);
}
