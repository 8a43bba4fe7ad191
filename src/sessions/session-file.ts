/**
 * A session as a file: the parts of its past, the first one first, and then its head, each a snapshot of its own. A file
 * is a stranger's: what could not be continued is refused, naming bound and value, and no piece of it holds up the event
 * loop or is unpacked beyond its bounds. Knows no owners and no stores.
 */
import { setImmediate } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { type StateSpec, stateBytes, tensorBytes } from "../model/state.ts";
import { type Head, openHead } from "./conversation.ts";
import { MAX_PART_TOKENS, passagesOf } from "./history.ts";
import { countPassageTokens } from "./message-spans.ts";
import { decodeSnapshotInPieces, encodeSnapshot, headerOf } from "./stores/codec.ts";
import { countTokens, withIds } from "./stores/past.ts";
import type { Past, Snapshot } from "./stores/store.ts";

export interface ImportBounds {
  readonly manifest: Pick<Manifest, "modelHash" | "state" | "sizes">;
  /** Tokens that the state may have left unread. */
  readonly maxUnreadTokens: number;
}

/** The past's key in a file, where it needs no name: it is what comes before. */
const PAST_IN_FILE = "-";
/** In the head, besides those that may be unread. No session that this server writes comes near this or the next bound. */
const MAX_HEAD_TOKENS = 2 ** 18;
const MAX_JSON_BYTES = 4 * 2 ** 20;
const MAX_JSON_DEPTH = 8;
/** Objects, lists, and members of both. */
const MAX_JSON_MEMBERS = 100_000;
const MAX_PASSAGES = 4096;
/** Each part takes more in a store than an empty one does in a file. */
const MAX_PIECES = 8192;
/** Of all pieces together. */
const MAX_ALL_JSON_BYTES = 64 * 2 ** 20;
/** Of a state's numbers, in f32. Those of trained models stay below 2^16. */
const MAX_EXPONENT = 50;
/** How much of a text or a state is checked between two turns of the event loop. */
const BYTES_AT_ONCE = 2 ** 20;
const NUMBERS_AT_ONCE = 2 ** 20;

/** @param parts of the head's past, the first one first */
export async function writeSessionFile(head: Head, parts: readonly Snapshot[]): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for (const snapshot of [...parts, head.snapshot]) {
    const { past, isShared: _, ...rest } = snapshot;
    pieces.push(encodeSnapshot({ ...rest, ...(past && { past: { key: PAST_IN_FILE, numTokens: past.numTokens } }) }));
    await setImmediate();
  }
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

export class SessionFile {
  /** Its past is not kept yet. */
  readonly head: Head;
  readonly #bytes: Uint8Array;
  readonly #bounds: ImportBounds;

  private constructor(bytes: Uint8Array, bounds: ImportBounds, head: Head) {
    this.#bytes = bytes;
    this.#bounds = bounds;
    this.head = head;
  }

  /**
   * Reads all of it, and keeps the head and the bytes.
   * @param bytes not to be changed afterwards
   * @throws `invalid_snapshot`
   */
  static async read(bytes: Uint8Array, bounds: ImportBounds): Promise<SessionFile> {
    let numTokens = 0;
    let numInPassages = 0;
    let head: Head | undefined;
    for await (const { snapshot, isLast } of piecesOf(bytes, bounds)) {
      const { past } = snapshot;
      if ((past?.numTokens ?? 0) !== numTokens) {
        throw invalid(`continues after ${past?.numTokens ?? 0} tokens; ${numTokens} come before it`);
      }
      numTokens = countTokens(snapshot);
      checkIds(snapshot.tokenIds, bounds);
      if (isLast) head = await checkHead(snapshot, numInPassages, bounds);
      else numInPassages += checkPart(snapshot);
    }
    return new SessionFile(bytes, bounds, head!);
  }

  /**
   * The head, after its past has been put.
   * @param put keeps a part and says where
   */
  async headBehind(put: (part: Snapshot) => Promise<string>): Promise<Head> {
    const { snapshot } = this.head;
    if (snapshot.past === undefined) return this.head;
    let past: Past | undefined;
    let seenIds: Uint8Array = new Uint8Array(0);
    for await (const { snapshot: part, isLast } of piecesOf(this.#bytes, this.#bounds)) {
      if (isLast) break;
      const key = await put({ ...part, ...(past && { past }) });
      past = { key, numTokens: countTokens(part) };
      seenIds = withIds(seenIds, part.tokenIds);
    }
    return { ...this.head, snapshot: { ...snapshot, past: { ...past!, seenIds } } };
  }
}

async function* piecesOf(bytes: Uint8Array, { manifest, maxUnreadTokens }: ImportBounds) {
  const model = { modelHash: manifest.modelHash, stateBytes: stateBytes(manifest.state) };
  let numPieces = 0;
  let numJsonBytes = 0;
  const checkJson = async (json: Buffer) => {
    numJsonBytes += json.length;
    if (numJsonBytes > MAX_ALL_JSON_BYTES) {
      throw invalid(`holds more than ${MAX_ALL_JSON_BYTES} bytes of messages`);
    }
    await checkNesting(json);
  };
  for (let at = 0; at === 0 || at < bytes.length; ) {
    if (++numPieces > MAX_PIECES) throw invalid(`has more than ${MAX_PIECES} pieces; no more are read`);
    const rest = Buffer.from(bytes.buffer, bytes.byteOffset + at, bytes.byteLength - at);
    const length = headerOf(rest)?.bytes ?? rest.length;
    const isLast = length >= rest.length;
    const snapshot = await decodeSnapshotInPieces(rest.subarray(0, length), model, {
      maxTokens: isLast ? MAX_HEAD_TOKENS + maxUnreadTokens : MAX_PART_TOKENS,
      maxConversationBytes: MAX_JSON_BYTES,
      checkJson,
    });
    if (isLast === (snapshot.isPart ?? false)) {
      throw invalid(isLast ? "ends before its head" : "continues after its head");
    }
    yield { snapshot, isLast };
    at += length;
  }
}

/** Checked before parsing: deeply nested JSON, or JSON of many small values, takes far more time and memory than its bytes. */
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

/** @returns how many tokens its passages cover */
function checkPart(part: Snapshot): number {
  if (part.state.length > 0) throw invalid("holds a state in front of its head");
  const passages = passagesOf(part);
  checkPassages(passages.length);
  return countPassageTokens(passages);
}

async function checkHead(snapshot: Snapshot, numInPassages: number, bounds: ImportBounds): Promise<Head> {
  const { manifest, maxUnreadTokens } = bounds;
  const { position, sampler } = snapshot;
  const head = openHead(snapshot, manifest.modelHash);
  const { passages, numPreambleTokens, numSampled = 0 } = head.conversation;
  checkPassages(passages.length);
  const numTokens = countTokens(snapshot);
  const numSpokenOf = numInPassages + countPassageTokens(passages);
  if (numPreambleTokens > numTokens || numSpokenOf > numTokens) {
    throw invalid(
      `claims ${numPreambleTokens} tokens before its messages and ${numSpokenOf} in them; it holds ${numTokens}`,
    );
  }
  if (numTokens > 0 && position === 0) throw invalid(`holds ${numTokens} tokens, of which its state has read none`);
  if (numTokens - position > maxUnreadTokens) {
    throw invalid(
      `has ${numTokens - position} tokens that its state has not read; at most ${maxUnreadTokens} may be left to read`,
    );
  }
  for (const [what, count] of [
    ["draws of random numbers", sampler?.numDraws ?? 0],
    ["sampled tokens", numSampled],
  ] as const) {
    if (count > numTokens) throw invalid(`claims ${count} ${what}; it holds ${numTokens} tokens`);
  }
  await checkNumbers(snapshot.state, manifest.state);
  return head;
}

function checkPassages(count: number): void {
  if (count > MAX_PASSAGES) throw invalid(`holds ${count} passages in one piece; at most ${MAX_PASSAGES} are read`);
}

function checkIds(tokenIds: readonly number[], { manifest }: ImportBounds): void {
  const { vocabSize } = manifest.sizes;
  const wrong = tokenIds.findIndex((id) => id >= vocabSize);
  if (wrong === -1) return;
  throw invalid(`holds token id ${tokenIds[wrong]}; those of this model are 0 to ${vocabSize - 1}`);
}

/**
 * All numbers of a state, f32 or f16, must be finite, and far from where sums of their squares would not be: what is not
 * finite spreads, and every answer would fail.
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
