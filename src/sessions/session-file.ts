/**
 * A session as a file: the segments of its history and its checkpoints, each after what it refers
 * to, then its snapshot, each as the codec has it. A file is untrusted: what could not be continued
 * is refused with the bound and the value, and nothing blocks the event loop or is unpacked beyond
 * its bounds. Knows no owners and no stores.
 */
import { setImmediate } from "node:timers/promises";
import { DenseMambaError } from "../errors.ts";
import type { Manifest } from "../model/artifact.ts";
import { type StateSpec, stateBytes, tensorBytes } from "../model/state.ts";
import { type Checkpoint, keepCheckpoints, thinCheckpoints } from "./checkpoints.ts";
import { type ConversationSnapshot, parseConversation } from "./conversation.ts";
import { loadHistory, MAX_SEGMENT_TOKENS, spansOf } from "./history.ts";
import { countSpanTokens } from "./messages.ts";
import { decodeUntrusted, encodeSnapshot, readHeader } from "./stores/codec.ts";
import { countTokens, type HistoryRef, historyTokens, type Snapshot, withIds } from "./stores/snapshot.ts";

export interface ImportBounds {
  readonly manifest: Pick<Manifest, "modelHash" | "state" | "sizes">;
  /** Tokens that the state may not have read. */
  readonly maxUnreadTokens: number;
  /** The current one included. A file may have more: they are thinned out. */
  readonly maxCheckpoints: number;
}

/** A session's snapshot, and what it refers to. */
export interface SessionParts {
  readonly snapshot: ConversationSnapshot;
  /** By their ids, without the current one. */
  readonly checkpoints: ReadonlyMap<string, ConversationSnapshot>;
  /** By their keys, each after the one before it. */
  readonly segments: ReadonlyMap<string, Snapshot>;
}

/** Stores what a file has. */
export interface ImportTarget {
  /** @returns its key */
  readonly putSegment: (segment: Snapshot) => Promise<string>;
  readonly newCheckpointId: () => string;
  readonly putCheckpoint: (id: string, checkpoint: ConversationSnapshot) => Promise<void>;
}

/** Where a file has the number of a piece: the segment before. */
const PREVIOUS_SEGMENT = "-";
/** In a snapshot, besides unread ones. No real session comes near this or the next bounds. */
const MAX_SNAPSHOT_TOKENS = 2 ** 18;
const MAX_JSON_BYTES = 4 * 2 ** 20;
const MAX_JSON_DEPTH = 8;
/** Objects, lists, and members of both. */
const MAX_JSON_MEMBERS = 100_000;
const MAX_SPANS = 4096;
/** Segments, checkpoints and the snapshot: each takes more in a store than in a file. */
const MAX_PIECES = 8192;
/** Of all pieces together. */
const MAX_ALL_JSON_BYTES = 64 * 2 ** 20;
/** Of a state's numbers, in f32. Those of trained models stay below 2^16. */
const MAX_EXPONENT = 50;
/** Checked between two turns of the event loop. */
const BYTES_AT_ONCE = 2 ** 20;
const NUMBERS_AT_ONCE = 2 ** 20;

/** Pieces refer to each other by their numbers, from 0. */
export async function writeSessionFile({ snapshot, checkpoints, segments }: SessionParts): Promise<Uint8Array> {
  const numbers = new Map<string, string>();
  for (const key of [...segments.keys(), ...checkpoints.keys()]) numbers.set(key, String(numbers.size));
  const pieces: Uint8Array[] = [];
  const write = async ({ history, isShared: _, ...rest }: Snapshot, checkpointKeys: readonly string[] = []) => {
    const ref = history && { history: { key: numbers.get(history.key)!, numTokens: history.numTokens } };
    pieces.push(encodeSnapshot({ ...rest, ...ref, checkpointKeys }));
    await setImmediate();
  };
  for (const piece of segments.values()) await write(piece);
  for (const checkpoint of checkpoints.values()) await write({ ...checkpoint, isSegment: true });
  const { checkpoints: tree, ...conversation } = snapshot.conversation;
  const kept = tree && keepCheckpoints(tree, ({ id }) => id === tree.current || checkpoints.has(id));
  const inFile = { ...snapshot, conversation: { ...conversation, ...(kept && { checkpoints: kept }) } };
  await write(
    inFile,
    [...checkpoints.keys()].map((id) => numbers.get(id)!),
  );
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

/** A segment of a file. */
interface FileSegment {
  /** Up to its end. */
  readonly numTokens: number;
  readonly numSpanTokens: number;
}

export class SessionFile {
  /** What it refers to is not stored yet. */
  readonly snapshot: ConversationSnapshot;
  readonly #bytes: Uint8Array;
  readonly #bounds: ImportBounds;
  /** By the numbers of their pieces, without those that are thinned out. */
  readonly #checkpoints: ReadonlyMap<number, Checkpoint>;

  private constructor(
    bytes: Uint8Array,
    bounds: ImportBounds,
    snapshot: ConversationSnapshot,
    checkpoints: ReadonlyMap<number, Checkpoint>,
  ) {
    this.#bytes = bytes;
    this.#bounds = bounds;
    this.snapshot = snapshot;
    this.#checkpoints = checkpoints;
  }

  /**
   * Checks all of it.
   * @param bytes referenced by the result: must not be changed afterwards
   * @throws `invalid_snapshot`
   */
  static async read(bytes: Uint8Array, bounds: ImportBounds): Promise<SessionFile> {
    const segments = new SegmentList<FileSegment>();
    const checkpointNumbers: number[] = [];
    for await (const { piece, number, isLast } of piecesOf(bytes, bounds)) {
      const { numTokens, numSpanTokens } = segments.before(piece) ?? { numTokens: 0, numSpanTokens: 0 };
      const numBefore = historyTokens(piece.history);
      if (numBefore !== numTokens) {
        throw invalid(`continues after ${numBefore} tokens; ${numTokens} come before it`);
      }
      checkIds(piece.tokenIds, bounds);
      if (isLast) {
        const snapshot = await checkSnapshot(piece, numSpanTokens, bounds);
        return new SessionFile(bytes, bounds, ...withCheckpoints(snapshot, checkpointNumbers, bounds));
      }
      if (piece.state.length > 0) {
        await checkSnapshot(piece, numSpanTokens, bounds);
        checkpointNumbers.push(number);
      } else {
        segments.add(number, { numTokens: countTokens(piece), numSpanTokens: numSpanTokens + checkSegment(piece) });
      }
    }
    throw new Error("a file has at least one piece");
  }

  /** The snapshot with all of its history in it, and without checkpoints. */
  async flatten(): Promise<ConversationSnapshot> {
    const segments = new Map<string, Snapshot>();
    const imported = await this.importParts({
      newCheckpointId: () => "",
      putCheckpoint: async () => {},
      putSegment: async (segment) => {
        const key = String(segments.size);
        segments.set(key, segment);
        return key;
      },
    });
    const { tokenIds, spans } = await loadHistory({ get: async (key) => segments.get(key) }, imported);
    const { history: _, ...snapshot } = imported;
    const { checkpoints: __, ...conversation } = snapshot.conversation;
    return { ...snapshot, tokenIds, conversation: { ...conversation, spans } };
  }

  get numCheckpoints(): number {
    return this.#checkpoints.size;
  }

  /**
   * Puts the history's segments and the checkpoints, which get new ids: a file may name those of
   * other sessions.
   * @returns the snapshot, with references to them
   */
  async importParts({ putSegment, newCheckpointId, putCheckpoint }: ImportTarget): Promise<ConversationSnapshot> {
    const segments = new SegmentList<HistoryRef>();
    const ids = new Map<string, string>();
    const idOf = (id: string) => {
      ids.set(id, ids.get(id) ?? newCheckpointId());
      return ids.get(id)!;
    };
    for await (const { piece, number, isLast } of piecesOf(this.#bytes, this.#bounds)) {
      const { history: _, expiresAtMs: __, ...rest } = piece;
      const history = segments.before(piece);
      if (isLast) {
        const { checkpoints: tree, ...conversation } = this.snapshot.conversation;
        const checkpoints = tree && {
          current: idOf(tree.current),
          all: tree.all.map((checkpoint) => ({ ...checkpoint, id: idOf(checkpoint.id) })),
        };
        const { history: ___, ...snapshot } = this.snapshot;
        const named = { ...conversation, ...(checkpoints && { checkpoints }) };
        return { ...snapshot, ...(history && { history }), conversation: named };
      }
      if (piece.state.length > 0) {
        const checkpoint = this.#checkpoints.get(number);
        if (checkpoint === undefined) continue;
        const snapshot = parseConversation({ ...rest, ...(history && { history }) }, piece.modelHash);
        await putCheckpoint(idOf(checkpoint.id), snapshot);
        continue;
      }
      const before = history && { key: history.key, numTokens: history.numTokens };
      const key = await putSegment({ ...rest, ...(before && { history: before }) });
      const seenIds = withIds(history?.seenIds ?? new Uint8Array(0), piece.tokenIds);
      segments.add(number, { key, numTokens: countTokens(piece), seenIds });
    }
    throw new Error("a file has at least one piece");
  }
}

/** What is known of the segments of a file, by the numbers of their pieces. */
class SegmentList<T> {
  readonly #byNumber = new Map<number, T>();
  #last: T | undefined;

  add(number: number, segment: T): void {
    this.#byNumber.set(number, segment);
    this.#last = segment;
  }

  /** The one that a piece continues. @throws `invalid_snapshot` if there is no such segment */
  before({ history }: Snapshot): T | undefined {
    if (history === undefined) return undefined;
    const found = history.key === PREVIOUS_SEGMENT ? this.#last : this.#byNumber.get(Number(history.key));
    if (found === undefined) {
      throw invalid(
        `continues after ${history.numTokens} tokens; 0 come before it in piece ${history.key.slice(0, 20)}`,
      );
    }
    return found;
  }
}

/** The snapshot with no more checkpoints than the bound, and those that have pieces by number. */
function withCheckpoints(
  snapshot: ConversationSnapshot,
  numbers: readonly number[],
  { maxCheckpoints }: ImportBounds,
): [ConversationSnapshot, ReadonlyMap<number, Checkpoint>] {
  const { checkpointKeys = [], ...rest } = snapshot;
  const { checkpoints: tree, ...conversation } = rest.conversation;
  if (checkpointKeys.length !== numbers.length || checkpointKeys.some((key, i) => Number(key) !== numbers[i])) {
    throw invalid(`names ${checkpointKeys.length} checkpoints; ${numbers.length} are before it, in another order`);
  }
  const { current, all = [] } = tree ?? {};
  const others = all.filter(({ id }) => id !== current);
  const isWhole = new Set(all.map(({ id }) => id)).size === all.length && all.length - others.length === (tree ? 1 : 0);
  if (others.length !== numbers.length || !isWhole) {
    throw invalid(`lists ${others.length} checkpoints besides the current one; it holds ${numbers.length}`);
  }
  if (tree === undefined) return [rest, new Map()];
  const thinned = thinCheckpoints(tree, maxCheckpoints);
  const byNumber = new Map(others.map((checkpoint, i) => [numbers[i]!, checkpoint] as const));
  const kept = new Set(thinned.all.map(({ id }) => id));
  for (const [number, { id }] of byNumber) if (!kept.has(id)) byNumber.delete(number);
  return [{ ...rest, conversation: { ...conversation, checkpoints: thinned } }, byNumber];
}

async function* piecesOf(bytes: Uint8Array, { manifest, maxUnreadTokens }: Omit<ImportBounds, "maxCheckpoints">) {
  const model = { modelHash: manifest.modelHash, stateBytes: stateBytes(manifest.state) };
  let number = 0;
  let numJsonBytes = 0;
  const checkJson = async (json: Buffer) => {
    numJsonBytes += json.length;
    if (numJsonBytes > MAX_ALL_JSON_BYTES) throw invalid(`holds more than ${MAX_ALL_JSON_BYTES} bytes of messages`);
    await checkNesting(json);
  };
  for (let at = 0; at === 0 || at < bytes.length; number++) {
    if (number >= MAX_PIECES) throw invalid(`has more than ${MAX_PIECES} pieces; no more are read`);
    const rest = Buffer.from(bytes.buffer, bytes.byteOffset + at, bytes.byteLength - at);
    const header = readHeader(rest);
    const length = header?.bytes ?? rest.length;
    const isLast = length >= rest.length;
    const isWhole = isLast || (header?.stateBytes ?? 0) > 0;
    const piece = await decodeUntrusted(rest.subarray(0, length), model, {
      maxTokens: isWhole ? MAX_SNAPSHOT_TOKENS + maxUnreadTokens : MAX_SEGMENT_TOKENS,
      maxConversationBytes: MAX_JSON_BYTES,
      checkJson,
    });
    if (isLast === (piece.isSegment ?? false)) {
      throw invalid(isLast ? "ends within its history" : "continues after its end");
    }
    yield { piece, number, isLast };
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
export async function checkNumbers(state: Uint8Array, spec: StateSpec): Promise<void> {
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
