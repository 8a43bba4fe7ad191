/**
 * A snapshot as bytes, for stores outside this process and for export. Everything is checked before it is used, lengths
 * before anything is allocated: what is truncated, altered, or made under another model or version is refused.
 *
 * Layout, little-endian, in this order:
 *   8  magic "DSMSTATE"
 *   4  format version             4  precision of the state: 0 f32, 1 f16
 *   4  bytes of the model hash (UTF-8)
 *   4  number of token ids        4  bytes of the conversation (UTF-8 JSON, deflated; 0: undefined)
 *   4  bytes of the sampler (UTF-8 JSON; 0: undefined)
 *   8  position                   8  bytes of the state, as it is stored
 *   8  revision (0: none)         8  when it expires, ms since 1970 (0: never)
 *   8  number of tokens in the past
 *   4  bytes of the past's key (UTF-8; 0: there is no past)
 *   4  bytes of the past's seen ids
 *   4  bytes of the conversation, inflated
 *   4  flags: 1 the shared store has had it, 2 a part of a past
 *   8  zeros
 *   …  past's key, past's seen ids, state, token ids (4 bytes each), model hash, conversation, sampler
 *  32  sha256 of all that precedes it
 */
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { promisify } from "node:util";
import { deflateRawSync, inflateRawSync, inflateRaw as inflateRawWithCallback } from "node:zlib";
import { DenseMambaError } from "../../errors.ts";
import { MAX_F16, narrowF16, widen } from "../../model/dtypes.ts";
import { countPast, countTokens } from "./past.ts";
import type { Past, SamplerState, Snapshot } from "./store.ts";
import { tokenBytes, tokensOf } from "./token-bytes.ts";

const MAGIC = Buffer.from("DSMSTATE");
const FORMAT_VERSION = 4;
const HEADER_BYTES = 96;
const CHECKSUM_BYTES = 32;
const REVISION_AT = 48;
const EXPIRY_AT = 56;
const PAST_TOKENS_AT = 64;
const PAST_KEY_BYTES_AT = 72;
const SEEN_BYTES_AT = 76;
const INFLATED_BYTES_AT = 80;
const FLAGS_AT = 84;

const IS_SHARED = 1;
const IS_PART = 2;
const MAX_PAST_KEY_BYTES = 1024;

/** What `headerOf` needs of a snapshot's beginning. */
export const MAX_HEADER_BYTES = HEADER_BYTES + MAX_PAST_KEY_BYTES;

/** Far more text and token ids than a session comes to: 16 million tokens, or 64 MiB of each. Text counts as it is unpacked. */
const MAX_EXTRA_BYTES = 128 * 2 ** 20;

const inflateRaw = promisify(inflateRawWithCallback);

/** Hashed between two turns of the event loop: some milliseconds. */
const PIECE_BYTES = 2 ** 21;

/** What the state is stored in. f16 halves the bytes and is not exact: docs/stores.md says what it costs. */
export type StatePrecision = "f32" | "f16";

const PRECISIONS: readonly StatePrecision[] = ["f32", "f16"];

export interface SnapshotModel {
  readonly modelHash: string;
  /** `stateBytes` of the model's state spec. */
  readonly stateBytes: number;
  /** Whether tensors of the state are f16 as they are: then it is stored as it is. Default false. */
  readonly isHalf?: boolean;
}

/** What no snapshot of such a model exceeds. */
export function maxSnapshotBytes({ stateBytes }: Pick<SnapshotModel, "stateBytes">): number {
  return stateBytes + MAX_EXTRA_BYTES;
}

/**
 * The snapshot must be valid; token ids are unsigned 32-bit integers. A state that f16 cannot hold stays f32.
 * @throws `invalid_value` if it would be longer than `maxSnapshotBytes`
 */
export function encodeSnapshot(
  snapshot: Snapshot,
  { precision: wanted = "f32" }: { readonly precision?: StatePrecision } = {},
): Buffer {
  const { past, tokenIds, position } = snapshot;
  assert(position >= 0 && position <= countTokens(snapshot), "a state has read no more than its tokens");
  assert(snapshot.state.length > 0 || position === 0, "what has read tokens has a state");
  const half = wanted === "f16" ? toF16(snapshot.state) : undefined;
  const state = half ?? snapshot.state;
  const modelHash = Buffer.from(snapshot.modelHash);
  const json = Buffer.from(JSON.stringify(snapshot.conversation) ?? "");
  const conversation = json.length === 0 ? json : deflateRawSync(json);
  const sampler = Buffer.from(
    JSON.stringify(snapshot.sampler, (_key, value) => (typeof value === "bigint" ? String(value) : value)) ?? "",
  );
  const pastKey = Buffer.from(past?.key ?? "");
  const seenIds = past?.seenIds ?? new Uint8Array(0);
  assert(past === undefined || pastKey.length > 0, "a past has a key");
  const seenAt = HEADER_BYTES + pastKey.length;
  const stateAt = seenAt + seenIds.length;
  const tokensAt = stateAt + state.length;
  const modelHashAt = tokensAt + tokenIds.length * 4;
  const conversationAt = modelHashAt + modelHash.length;
  const samplerAt = conversationAt + conversation.length;
  const checksumAt = samplerAt + sampler.length;
  const maxBytes = maxSnapshotBytes({ stateBytes: snapshot.state.length });
  const unpackedBytes = checksumAt + CHECKSUM_BYTES - conversation.length + json.length;
  if (Math.max(checksumAt + CHECKSUM_BYTES, unpackedBytes) > maxBytes) {
    throw new DenseMambaError(
      "invalid_value",
      `a snapshot of ${unpackedBytes} bytes cannot be kept: one of this model has at most ${maxBytes}`,
    );
  }

  const bytes = Buffer.allocUnsafe(checksumAt + CHECKSUM_BYTES);
  bytes.fill(0, 0, HEADER_BYTES);
  bytes.set(MAGIC, 0);
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(PRECISIONS.indexOf(half === undefined ? "f32" : "f16"), 12);
  bytes.writeUInt32LE(modelHash.length, 16);
  bytes.writeUInt32LE(tokenIds.length, 20);
  bytes.writeUInt32LE(conversation.length, 24);
  bytes.writeUInt32LE(sampler.length, 28);
  bytes.writeBigUInt64LE(BigInt(position), 32);
  bytes.writeBigUInt64LE(BigInt(state.length), 40);
  bytes.writeBigUInt64LE(BigInt(snapshot.revision ?? 0), REVISION_AT);
  bytes.writeBigUInt64LE(BigInt(Math.ceil(snapshot.expiresAtMs ?? 0)), EXPIRY_AT);
  bytes.writeBigUInt64LE(BigInt(countPast(past)), PAST_TOKENS_AT);
  bytes.writeUInt32LE(pastKey.length, PAST_KEY_BYTES_AT);
  bytes.writeUInt32LE(seenIds.length, SEEN_BYTES_AT);
  bytes.writeUInt32LE(json.length, INFLATED_BYTES_AT);
  bytes.writeUInt32LE((snapshot.isShared ? IS_SHARED : 0) | (snapshot.isPart ? IS_PART : 0), FLAGS_AT);
  bytes.set(pastKey, HEADER_BYTES);
  bytes.set(seenIds, seenAt);
  bytes.set(state, stateAt);
  bytes.set(tokenBytes(tokenIds), tokensAt);
  bytes.set(modelHash, modelHashAt);
  bytes.set(conversation, conversationAt);
  bytes.set(sampler, samplerAt);
  bytes.set(checksum(bytes.subarray(0, checksumAt)), checksumAt);
  return bytes;
}

/**
 * @param bytes kept by the result: its `state` may be a view of them.
 * @throws `invalid_snapshot`, naming what is wrong, what was expected and what was found.
 */
export function decodeSnapshot(bytes: Uint8Array, model: SnapshotModel): Snapshot {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = layout(buffer);
  checkChecksum(buffer, found, checksum(buffer.subarray(0, found.checksumAt)));
  return read(buffer, found, model, inflate(packedConversation(buffer, found), found));
}

/**
 * As `decodeSnapshot`, for a file that a stranger sent: several times as slow, but no piece of it holds up the event loop.
 * @param checkJson throws if the conversation's JSON is not to be parsed
 */
export async function decodeSnapshotInPieces(
  bytes: Uint8Array,
  model: SnapshotModel,
  bounds: {
    readonly maxTokens: number;
    readonly maxConversationBytes: number;
    readonly checkJson: (json: Buffer) => Promise<void>;
  },
): Promise<Snapshot> {
  const { maxTokens, maxConversationBytes, checkJson } = bounds;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = layout(buffer);
  const numTokens = (found.modelHashAt - found.tokensAt) / 4;
  if (numTokens > maxTokens) throw invalid(`holds ${numTokens} token ids in one piece; at most ${maxTokens} are read`);
  if (found.inflatedBytes > maxConversationBytes) {
    throw invalid(`holds a conversation of ${found.inflatedBytes} bytes; at most ${maxConversationBytes} are read`);
  }
  checkChecksum(buffer, found, await checksumInPieces(buffer.subarray(0, found.checksumAt)));
  const json = await inflateInBackground(packedConversation(buffer, found), found);
  await checkJson(json);
  return read(buffer, found, model, json);
}

function read(buffer: Buffer, found: Sections, model: SnapshotModel, conversation: Buffer): Snapshot {
  const { position, numPastTokens, revision, expiresAtMs, isShared, isPart, precision } = found;
  const { seenAt, stateAt, tokensAt, modelHashAt, conversationAt, samplerAt, checksumAt } = found;
  const modelHash = buffer.toString("utf8", modelHashAt, conversationAt);
  if (modelHash !== model.modelHash) {
    throw invalid(`was made by model ${modelHash}; this server runs ${model.modelHash}`);
  }
  const numTokens = numPastTokens + (modelHashAt - tokensAt) / 4;
  if (position > numTokens) throw invalid(`is at position ${position} but holds ${numTokens} token ids`);
  // Not a Buffer, whatever the bytes came in: its `slice` would not copy.
  const stored = new Uint8Array(buffer.buffer, buffer.byteOffset + stateAt, tokensAt - stateAt);
  checkStateBytes(stored.length * (precision === "f16" ? 2 : 1), position, model);
  if (stored.length > 0 && position < numPastTokens) {
    throw invalid(`is at position ${position}, within the ${numPastTokens} tokens of its past`);
  }
  const past: Past | undefined =
    seenAt === HEADER_BYTES
      ? undefined
      : {
          key: buffer.toString("utf8", HEADER_BYTES, seenAt),
          numTokens: numPastTokens,
          ...(stateAt > seenAt && { seenIds: new Uint8Array(buffer.subarray(seenAt, stateAt)) }),
        };

  const sampler = parseSampler(parseJson("sampler", buffer.toString("utf8", samplerAt, checksumAt)));
  return {
    modelHash,
    ...(past && { past }),
    tokenIds: tokensOf(buffer.subarray(tokensAt, modelHashAt)),
    position,
    state: precision === "f16" ? fromF16(stored) : stored,
    conversation: parseJson("conversation", conversation.toString("utf8")),
    ...(sampler !== undefined && { sampler }),
    ...(revision > 0 && { revision }),
    ...(expiresAtMs > 0 && { expiresAtMs }),
    ...(isShared && { isShared }),
    ...(isPart && { isPart }),
  };
}

/** Whether the bytes are torn or altered. Of another format version that cannot be told: they are taken to be whole. */
export function isDamaged(bytes: Uint8Array): boolean {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isOfAnotherVersion(buffer)) return false;
  try {
    const { checksumAt } = layout(buffer);
    return !checksum(buffer.subarray(0, checksumAt)).equals(buffer.subarray(checksumAt));
  } catch {
    return true;
  }
}

/** What stores look for in a snapshot without reading it. */
export interface SnapshotHeader {
  /** 0 if there is none. */
  readonly revision: number;
  readonly isShared: boolean;
  readonly isPart: boolean;
  /** Where what stands before it is kept. */
  readonly pastKey: string | undefined;
  readonly numPastTokens: number;
  /** Of the whole snapshot. */
  readonly bytes: number;
}

/**
 * Checks nothing that lies behind it.
 * @param beginning of a snapshot: all of it, or its first `MAX_HEADER_BYTES` at least
 * @returns undefined for a snapshot of another format version
 * @throws `invalid_snapshot` if no snapshot begins so
 */
export function headerOf(beginning: Buffer): SnapshotHeader | undefined {
  if (isOfAnotherVersion(beginning)) return undefined;
  const { revision, isShared, isPart, numPastTokens, seenAt, checksumAt } = sections(beginning);
  const key = beginning.toString("utf8", HEADER_BYTES, seenAt);
  const pastKey = key === "" ? undefined : key;
  return { revision, isShared, isPart, pastKey, numPastTokens, bytes: checksumAt + CHECKSUM_BYTES };
}

function startsAsSnapshot(buffer: Buffer): boolean {
  return buffer.subarray(0, MAGIC.length).equals(MAGIC);
}

function isOfAnotherVersion(buffer: Buffer): boolean {
  return buffer.length >= HEADER_BYTES && startsAsSnapshot(buffer) && buffer.readUInt32LE(8) !== FORMAT_VERSION;
}

/** Reads the header; the sections lie within the bytes, one behind the other. */
function layout(buffer: Buffer) {
  const found = sections(buffer);
  const bytes = found.checksumAt + CHECKSUM_BYTES;
  if (bytes !== buffer.length) throw invalid(`is ${buffer.length} bytes long; its header says ${bytes}`);
  return found;
}

/** What the header says; of what lies behind it nothing is known. */
function sections(buffer: Buffer) {
  const minBytes = HEADER_BYTES + CHECKSUM_BYTES;
  if (buffer.length < minBytes) throw invalid(`is ${buffer.length} bytes long; the shortest possible is ${minBytes}`);
  if (!startsAsSnapshot(buffer)) throw invalid("does not start as a snapshot does");
  const version = buffer.readUInt32LE(8);
  if (version !== FORMAT_VERSION) throw invalid(`has format version ${version}; this server reads ${FORMAT_VERSION}`);
  const precision = PRECISIONS[buffer.readUInt32LE(12)];
  if (precision === undefined) {
    throw invalid(`has a state of precision ${buffer.readUInt32LE(12)}; this server reads 0 (f32) and 1 (f16)`);
  }
  const pastKeyBytes = buffer.readUInt32LE(PAST_KEY_BYTES_AT);
  if (pastKeyBytes > MAX_PAST_KEY_BYTES) {
    throw invalid(`names a past by ${pastKeyBytes} bytes; at most ${MAX_PAST_KEY_BYTES} are read`);
  }
  // As numbers these may be inexact beyond 2^53, but then they are far beyond any length that passes.
  const position = Number(buffer.readBigUInt64LE(32));
  const revision = Number(buffer.readBigUInt64LE(REVISION_AT));
  const expiresAtMs = Number(buffer.readBigUInt64LE(EXPIRY_AT));
  const numPastTokens = Number(buffer.readBigUInt64LE(PAST_TOKENS_AT));
  const inflatedBytes = buffer.readUInt32LE(INFLATED_BYTES_AT);
  const flags = buffer.readUInt32LE(FLAGS_AT);
  const [isShared, isPart] = [(flags & IS_SHARED) !== 0, (flags & IS_PART) !== 0];
  const seenAt = HEADER_BYTES + pastKeyBytes;
  const stateAt = seenAt + buffer.readUInt32LE(SEEN_BYTES_AT);
  const tokensAt = stateAt + Number(buffer.readBigUInt64LE(40));
  const modelHashAt = tokensAt + buffer.readUInt32LE(20) * 4;
  const conversationAt = modelHashAt + buffer.readUInt32LE(16);
  const samplerAt = conversationAt + buffer.readUInt32LE(24);
  const checksumAt = samplerAt + buffer.readUInt32LE(28);
  return {
    precision,
    position,
    revision,
    expiresAtMs,
    numPastTokens,
    inflatedBytes,
    isShared,
    isPart,
    seenAt,
    stateAt,
    tokensAt,
    modelHashAt,
    conversationAt,
    samplerAt,
    checksumAt,
  };
}

type Sections = ReturnType<typeof sections>;

function checkStateBytes(numBytes: number, position: number, model: SnapshotModel): void {
  if (numBytes === model.stateBytes || (numBytes === 0 && position === 0)) return;
  throw invalid(`holds ${numBytes} bytes of state; this model's state has ${model.stateBytes}`);
}

/** @returns undefined if some number is beyond f16, or not finite */
function toF16(state: Uint8Array): Uint8Array | undefined {
  // NOTE: copied by the constructor: `slice` of a Buffer would be a view.
  const floats = new Float32Array(new Uint8Array(state).buffer);
  if (!floats.every((value) => Math.abs(value) <= MAX_F16)) return undefined;
  return new Uint8Array(narrowF16(floats).buffer);
}

function fromF16(stored: Uint8Array): Uint8Array {
  // A copy: `widen` wants bytes that own their buffer, and those of a socket need not be aligned.
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

function packedConversation(buffer: Buffer, { conversationAt, samplerAt }: Sections): Buffer {
  return buffer.subarray(conversationAt, samplerAt);
}

/** To exactly as many bytes as the header says. */
function inflate(packed: Buffer, { inflatedBytes }: Sections): Buffer {
  if (packed.length === 0) return packed;
  if (inflatedBytes > MAX_EXTRA_BYTES) throw unpacksOtherwise(inflatedBytes);
  try {
    return ofLength(inflatedBytes, inflateRawSync(packed, { maxOutputLength: Math.max(1, inflatedBytes) }));
  } catch (cause) {
    throw unpacksOtherwise(inflatedBytes, cause);
  }
}

async function inflateInBackground(packed: Buffer, { inflatedBytes }: Sections): Promise<Buffer> {
  if (packed.length === 0) return packed;
  try {
    return ofLength(inflatedBytes, await inflateRaw(packed, { maxOutputLength: Math.max(1, inflatedBytes) }));
  } catch (cause) {
    throw unpacksOtherwise(inflatedBytes, cause);
  }
}

function ofLength(expected: number, json: Buffer): Buffer {
  if (json.length !== expected) throw new Error(`${json.length} bytes`);
  return json;
}

function unpacksOtherwise(inflatedBytes: number, cause?: unknown): DenseMambaError {
  return invalid(`holds a conversation that does not unpack to the ${inflatedBytes} bytes that it should have`, cause);
}

function parseJson(what: "conversation" | "sampler", json: string): unknown {
  if (json === "") return undefined;
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw invalid(`holds a ${what} that is not JSON`, cause);
  }
}

function checksum(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

async function checksumInPieces(bytes: Uint8Array): Promise<Buffer> {
  const hash = createHash("sha256");
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    hash.update(bytes.subarray(at, at + PIECE_BYTES));
    await setImmediate();
  }
  return hash.digest();
}

function checkChecksum(buffer: Buffer, { checksumAt }: Sections, expected: Buffer): void {
  if (expected.equals(buffer.subarray(checksumAt))) return;
  throw invalid("has been altered: its checksum does not match its content");
}

function invalid(what: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", `the snapshot ${what}`, { cause });
}
