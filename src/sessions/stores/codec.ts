/**
 * A snapshot as bytes, for stores outside this process and for export. Everything is checked before
 * use, and lengths before anything is allocated: what is truncated, altered, or of another model or
 * format version is refused.
 *
 * Layout, little-endian:
 *   8  magic "DSMSTATE"
 *   4  format version             4  precision of the state: 0 f32, 1 f16
 *   4  flags: 1 the shared store has had it, 2 a part of a conversation
 *   4  bytes of the conversation when inflated
 *   8  position                   8  revision (0: none)
 *   8  when it expires, ms since 1970 (0: never)
 *   8  number of tokens in the history
 *  56  bytes of each section, 8 each
 *   …  the sections: references (the history's key and those of checkpoints, a line each), the ids
 *      seen in the history, state, token ids (4 bytes each), model hash, conversation (JSON,
 *      deflated), sampler (JSON)
 *  32  sha256 of all that precedes it
 */
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { deflateRawSync, inflateRawSync, inflateRaw as inflateRawWithCallback } from "node:zlib";
import { DenseMambaError } from "../../errors.ts";
import { MAX_F16, narrowF16, widen } from "../../model/dtypes.ts";
import {
  bytesToTokens,
  countTokens,
  type HistoryRef,
  historyTokens,
  madeByAnother,
  type SamplerState,
  type Snapshot,
  type SnapshotSummary,
  tokensToBytes,
} from "./snapshot.ts";

const MAGIC = Buffer.from("DSMSTATE");
const FORMAT_VERSION = 6;
/** The last one without checkpoints: otherwise the same. */
const OLDEST_VERSION = 5;
const SECTIONS = ["references", "seenIds", "state", "tokenIds", "modelHash", "conversation", "sampler"] as const;
const LENGTHS_AT = 56;
const HEADER_BYTES = LENGTHS_AT + 8 * SECTIONS.length;
const CHECKSUM_BYTES = 32;
const IS_SHARED = 1;
const IS_SEGMENT = 2;
/** Far more than any session has: its checkpoints are bounded by the config. */
const MAX_REFERENCE_BYTES = 256 * 1024;

/** What `readHeader` needs of a snapshot, but for long lists of references. */
export const USUAL_HEADER_BYTES = 4096;

/** Far more than any session has: 16 million tokens, or 64 MiB each of tokens and inflated text. */
const MAX_EXTRA_BYTES = 128 * 2 ** 20;

/** Hashed between two turns of the event loop: some milliseconds. */
const CHUNK_BYTES = 2 ** 21;

/** How the state is stored. f16 halves the bytes and is not exact: see docs/stores.md. */
export type StorePrecision = "f32" | "f16";

const PRECISIONS: readonly StorePrecision[] = ["f32", "f16"];

export interface SnapshotModel {
  readonly modelHash: string;
  /** `stateBytes` of the model's state spec. */
  readonly stateBytes: number;
  /** Whether tensors of the state are f16 already: then it is stored as it is. Default false. */
  readonly isHalf?: boolean;
}

/** No snapshot of such a model is larger. */
export function maxSnapshotBytes({ stateBytes }: Pick<SnapshotModel, "stateBytes">): number {
  return stateBytes + MAX_EXTRA_BYTES;
}

/**
 * Token ids are unsigned 32-bit integers. A state that f16 cannot hold stays f32.
 * @throws `invalid_value` if the result would be longer than `maxSnapshotBytes`
 */
export function encodeSnapshot(
  snapshot: Snapshot,
  { precision: wanted = "f32" }: { readonly precision?: StorePrecision } = {},
): Buffer {
  const { history, tokenIds, position, revision = 0, expiresAtMs = 0 } = snapshot;
  assert(position >= 0 && position <= countTokens(snapshot), "a state has read no more than its tokens");
  assert(snapshot.state.length > 0 || position === 0, "what has read tokens has a state");
  assert(history === undefined || history.key !== "", "a history has a key");
  const references = [history?.key ?? "", ...(snapshot.checkpointKeys ?? [])];
  const half = wanted === "f16" ? toF16(snapshot.state) : undefined;
  const json = Buffer.from(JSON.stringify(snapshot.conversation) ?? "");
  const sections: Record<(typeof SECTIONS)[number], Uint8Array> = {
    references: Buffer.from(references.join("\n")),
    seenIds: history?.seenIds ?? new Uint8Array(0),
    state: half ?? snapshot.state,
    tokenIds: tokensToBytes(tokenIds),
    modelHash: Buffer.from(snapshot.modelHash),
    conversation: json.length === 0 ? json : deflateRawSync(json),
    sampler: Buffer.from(JSON.stringify(snapshot.sampler, (_, value) => bigintToString(value)) ?? ""),
  };
  const checksumAt = SECTIONS.reduce((sum, name) => sum + sections[name].length, HEADER_BYTES);
  const numBytes = checksumAt + CHECKSUM_BYTES;
  const inflatedBytes = numBytes - sections.conversation.length + json.length;
  const maxBytes = maxSnapshotBytes({ stateBytes: snapshot.state.length });
  if (Math.max(numBytes, inflatedBytes) > maxBytes) {
    throw new DenseMambaError(
      "invalid_value",
      `a snapshot of ${inflatedBytes} bytes cannot be stored: one of this model has at most ${maxBytes}`,
    );
  }

  const bytes = Buffer.allocUnsafe(numBytes);
  bytes.set(MAGIC, 0);
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(PRECISIONS.indexOf(half === undefined ? "f32" : "f16"), 12);
  bytes.writeUInt32LE((snapshot.isShared ? IS_SHARED : 0) | (snapshot.isSegment ? IS_SEGMENT : 0), 16);
  bytes.writeUInt32LE(json.length, 20);
  bytes.writeBigUInt64LE(BigInt(position), 24);
  bytes.writeBigUInt64LE(BigInt(revision), 32);
  bytes.writeBigUInt64LE(BigInt(Math.ceil(expiresAtMs)), 40);
  bytes.writeBigUInt64LE(BigInt(historyTokens(history)), 48);
  let at = HEADER_BYTES;
  for (const [i, name] of SECTIONS.entries()) {
    bytes.writeBigUInt64LE(BigInt(sections[name].length), LENGTHS_AT + 8 * i);
    bytes.set(sections[name], at);
    at += sections[name].length;
  }
  bytes.set(sha256(bytes.subarray(0, checksumAt)), checksumAt);
  return bytes;
}

/**
 * @param bytes not copied: the result's `state` may be a view of them
 * @throws `invalid_snapshot`, with what was expected and what was found
 */
export function decodeSnapshot(bytes: Uint8Array, model: SnapshotModel): Snapshot {
  const layout = parseLayout(asBuffer(bytes));
  checkChecksum(layout, sha256(layout.content));
  return toSnapshot(layout, model, inflate(layout));
}

/**
 * Like `decodeSnapshot`, for an untrusted file: several times as slow, but never blocks the event
 * loop.
 * @param checkJson throws if the conversation's JSON must not be parsed
 */
export async function decodeUntrusted(
  bytes: Uint8Array,
  model: SnapshotModel,
  bounds: {
    readonly maxTokens: number;
    readonly maxConversationBytes: number;
    readonly checkJson: (json: Buffer) => Promise<void>;
  },
): Promise<Snapshot> {
  const { maxTokens, maxConversationBytes, checkJson } = bounds;
  const layout = parseLayout(asBuffer(bytes));
  const numTokens = layout.section("tokenIds").length / 4;
  if (numTokens > maxTokens) throw invalid(`holds ${numTokens} token ids in one piece; at most ${maxTokens} are read`);
  if (layout.inflatedBytes > maxConversationBytes) {
    throw invalid(`holds a conversation of ${layout.inflatedBytes} bytes; at most ${maxConversationBytes} are read`);
  }
  const hash = createHash("sha256");
  for (let at = 0; at < layout.content.length; at += CHUNK_BYTES) {
    hash.update(layout.content.subarray(at, at + CHUNK_BYTES));
    await setImmediate();
  }
  checkChecksum(layout, hash.digest());
  const json = await inflateInBackground(layout);
  await checkJson(json);
  return toSnapshot(layout, model, json);
}

/** Whether the bytes are torn or altered. Another format version counts as intact. */
export function isDamaged(bytes: Uint8Array): boolean {
  const buffer = asBuffer(bytes);
  if (hasOtherVersion(buffer)) return false;
  try {
    const { content, checksum } = parseLayout(buffer);
    return !sha256(content).equals(checksum);
  } catch {
    return true;
  }
}

export interface SnapshotHeader extends SnapshotSummary {
  /** With the references, which are missing if there were fewer. */
  readonly headerBytes: number;
  /** Of the whole snapshot. */
  readonly bytes: number;
}

/**
 * Checks only the header.
 * @param beginning of a snapshot: all of it, or its first `USUAL_HEADER_BYTES` at least
 * @returns undefined for another format version
 * @throws `invalid_snapshot` if it is not the beginning of a snapshot
 */
export function readHeader(beginning: Buffer): SnapshotHeader | undefined {
  if (hasOtherVersion(beginning)) return undefined;
  const header = parseHeader(beginning);
  const { revision, isShared, isSegment, numHistoryTokens, stateBytes, headerBytes, bytes } = header;
  const fields = { revision, isShared, isSegment, numHistoryTokens, stateBytes, headerBytes, bytes };
  if (beginning.length < headerBytes) return { ...fields, references: [], numCheckpoints: 0 };
  const { historyKey, checkpointKeys } = parseReferences(header.section("references"));
  const references = historyKey === "" ? checkpointKeys : [historyKey, ...checkpointKeys];
  return { ...fields, references, numCheckpoints: checkpointKeys.length };
}

function parseReferences(section: Buffer) {
  const [historyKey = "", ...checkpointKeys] = section.toString().split("\n");
  return { historyKey, checkpointKeys };
}

/** Whether the bytes begin as a snapshot does. */
export function isSnapshot(bytes: Uint8Array): boolean {
  return startsAsSnapshot(asBuffer(bytes));
}

function startsAsSnapshot(buffer: Buffer): boolean {
  return buffer.subarray(0, MAGIC.length).equals(MAGIC);
}

function hasOtherVersion(buffer: Buffer): boolean {
  return buffer.length >= HEADER_BYTES && startsAsSnapshot(buffer) && !isReadable(buffer.readUInt32LE(8));
}

function isReadable(version: number): boolean {
  return version >= OLDEST_VERSION && version <= FORMAT_VERSION;
}

type Layout = ReturnType<typeof parseLayout>;

/** The header of a whole snapshot: its sections fill the buffer exactly. */
function parseLayout(buffer: Buffer) {
  const header = parseHeader(buffer);
  if (header.bytes !== buffer.length) {
    throw invalid(`is ${buffer.length} bytes long; its header says ${header.bytes}`);
  }
  const checksumAt = buffer.length - CHECKSUM_BYTES;
  return { ...header, content: buffer.subarray(0, checksumAt), checksum: buffer.subarray(checksumAt) };
}

/** Nothing is known of the bytes after the header. */
function parseHeader(buffer: Buffer) {
  const minBytes = HEADER_BYTES + CHECKSUM_BYTES;
  if (buffer.length < minBytes) throw invalid(`is ${buffer.length} bytes long; the shortest possible is ${minBytes}`);
  if (!startsAsSnapshot(buffer)) throw invalid("does not start as a snapshot does");
  const version = buffer.readUInt32LE(8);
  if (!isReadable(version)) {
    throw invalid(`has format version ${version}; this server reads ${OLDEST_VERSION} and ${FORMAT_VERSION}`);
  }
  const precision = PRECISIONS[buffer.readUInt32LE(12)];
  if (precision === undefined) {
    throw invalid(`has a state of precision ${buffer.readUInt32LE(12)}; this server reads 0 (f32) and 1 (f16)`);
  }
  // Numbers beyond 2^53 are inexact here, but far beyond any length that passes.
  const number = (at: number) => Number(buffer.readBigUInt64LE(at));
  const lengths = SECTIONS.map((_, i) => number(LENGTHS_AT + 8 * i));
  if (lengths[0]! > MAX_REFERENCE_BYTES) {
    throw invalid(`has references of ${lengths[0]} bytes; at most ${MAX_REFERENCE_BYTES} are read`);
  }
  let end = HEADER_BYTES;
  const ends = lengths.map((length) => {
    end += length;
    return end;
  });
  const flags = buffer.readUInt32LE(16);
  return {
    precision,
    isShared: (flags & IS_SHARED) !== 0,
    isSegment: (flags & IS_SEGMENT) !== 0,
    inflatedBytes: buffer.readUInt32LE(20),
    position: number(24),
    revision: number(32),
    expiresAtMs: number(40),
    numHistoryTokens: number(48),
    stateBytes: lengths[SECTIONS.indexOf("state")]!,
    /** With the references. */
    headerBytes: HEADER_BYTES + lengths[0]!,
    section: (name: (typeof SECTIONS)[number]) => {
      const i = SECTIONS.indexOf(name);
      return buffer.subarray(ends[i - 1] ?? HEADER_BYTES, ends[i]);
    },
    /** Of the whole snapshot. */
    bytes: end + CHECKSUM_BYTES,
  };
}

function toSnapshot(layout: Layout, model: SnapshotModel, json: Buffer): Snapshot {
  const { position, numHistoryTokens, revision, expiresAtMs, isShared, isSegment, precision, section } = layout;
  const modelHash = section("modelHash").toString();
  if (modelHash !== model.modelHash) {
    throw invalid(madeByAnother(modelHash, model.modelHash));
  }
  const tokenBytes = section("tokenIds");
  if (tokenBytes.length % 4 !== 0) throw invalid(`has ${tokenBytes.length} bytes of token ids, not a multiple of 4`);
  const numTokens = numHistoryTokens + tokenBytes.length / 4;
  if (position > numTokens) throw invalid(`is at position ${position} but holds ${numTokens} token ids`);
  const bytes = section("state");
  // A plain Uint8Array: `slice` of a Buffer does not copy.
  const stored = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
  const numBytes = stored.length * (precision === "f16" ? 2 : 1);
  if (numBytes !== model.stateBytes && (numBytes !== 0 || position !== 0)) {
    throw invalid(`holds ${numBytes} bytes of state; this model's state has ${model.stateBytes}`);
  }
  if (stored.length > 0 && position < numHistoryTokens) {
    throw invalid(`is at position ${position}, within the ${numHistoryTokens} tokens of its history`);
  }
  const history = toHistoryRef(layout);
  const { checkpointKeys } = parseReferences(section("references"));
  const sampler = parseSampler(parseJson("sampler", section("sampler")));
  return {
    modelHash,
    ...(history && { history }),
    ...(checkpointKeys.length > 0 && { checkpointKeys }),
    tokenIds: bytesToTokens(tokenBytes),
    position,
    state: precision === "f16" ? fromF16(stored) : stored,
    conversation: parseJson("conversation", json),
    ...(sampler !== undefined && { sampler }),
    ...(revision > 0 && { revision }),
    ...(expiresAtMs > 0 && { expiresAtMs }),
    ...(isShared && { isShared }),
    ...(isSegment && { isSegment }),
  };
}

function toHistoryRef({ numHistoryTokens: numTokens, section }: Layout): HistoryRef | undefined {
  const { historyKey: key } = parseReferences(section("references"));
  if (key === "") return undefined;
  const seenIds = new Uint8Array(section("seenIds"));
  return { key, numTokens, ...(seenIds.length > 0 && { seenIds }) };
}

/** @returns undefined if a number is beyond f16, or not finite */
function toF16(state: Uint8Array): Uint8Array | undefined {
  // NOTE: the constructor copies; `slice` of a Buffer would be a view.
  const floats = new Float32Array(new Uint8Array(state).buffer);
  if (!floats.every((value) => Math.abs(value) <= MAX_F16)) return undefined;
  return new Uint8Array(narrowF16(floats).buffer);
}

function fromF16(stored: Uint8Array): Uint8Array {
  // A copy: `widen` needs bytes that own their buffer, and those of a socket need not be aligned.
  const owned = new Uint8Array(stored);
  return new Uint8Array(widen("F16", Buffer.from(owned.buffer)).buffer);
}

function parseSampler(given: unknown): SamplerState | undefined {
  if (given === undefined) return undefined;
  const { seed, numDraws } = (given ?? {}) as Record<string, unknown>;
  if (typeof numDraws === "number" && Number.isSafeInteger(numDraws) && numDraws >= 0) {
    if (typeof seed === "number") return { seed, numDraws };
    // JSON.parse rounds integers beyond 2^53.
    if (typeof seed === "string" && /^-?\d{16,19}$/.test(seed)) return { seed: BigInt(seed), numDraws };
  }
  throw invalid(`holds a sampler without a seed and a number of draws: ${JSON.stringify(given).slice(0, 100)}`);
}

function bigintToString(value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

/** To exactly as many bytes as the header says. */
function inflate({ section, inflatedBytes }: Layout): Buffer {
  const packed = section("conversation");
  if (packed.length === 0) return packed;
  if (inflatedBytes > MAX_EXTRA_BYTES) throw inflatesOtherwise(inflatedBytes);
  try {
    return ofLength(inflatedBytes, inflateRawSync(packed, { maxOutputLength: Math.max(1, inflatedBytes) }));
  } catch (cause) {
    throw inflatesOtherwise(inflatedBytes, cause);
  }
}

const inflateRaw = promisify(inflateRawWithCallback);

async function inflateInBackground({ section, inflatedBytes }: Layout): Promise<Buffer> {
  const packed = section("conversation");
  if (packed.length === 0) return packed;
  try {
    return ofLength(inflatedBytes, await inflateRaw(packed, { maxOutputLength: Math.max(1, inflatedBytes) }));
  } catch (cause) {
    throw inflatesOtherwise(inflatedBytes, cause);
  }
}

function ofLength(expected: number, json: Buffer): Buffer {
  if (json.length !== expected) throw new Error(`${json.length} bytes`);
  return json;
}

function inflatesOtherwise(inflatedBytes: number, cause?: unknown): DenseMambaError {
  return invalid(`holds a conversation that does not unpack to the ${inflatedBytes} bytes that it should have`, cause);
}

function parseJson(what: "conversation" | "sampler", json: Buffer): unknown {
  if (json.length === 0) return undefined;
  try {
    return JSON.parse(json.toString());
  } catch (cause) {
    throw invalid(`holds a ${what} that is not JSON`, cause);
  }
}

function checkChecksum({ checksum }: Layout, actual: Buffer): void {
  if (!actual.equals(checksum)) throw invalid("has been altered: its checksum does not match its content");
}

function sha256(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}

function invalid(what: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", `the snapshot ${what}`, { cause });
}
