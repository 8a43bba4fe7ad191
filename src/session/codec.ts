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
 *   …  state, token ids (4 bytes each), model hash, conversation, sampler
 *  32  sha256 of all that precedes it
 */
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import { DenseMambaError } from "../errors.ts";
import { MAX_F16, narrowF16, widen } from "../model/dtypes.ts";
import type { SamplerState, Snapshot } from "./store.ts";
import { tokenBytes, tokensOf } from "./token-bytes.ts";

const MAGIC = Buffer.from("DSMSTATE");
const FORMAT_VERSION = 3;
const HEADER_BYTES = 64;
const CHECKSUM_BYTES = 32;
const REVISION_AT = 48;
const EXPIRY_AT = 56;

/** What `revisionIn` needs of a snapshot. */
export const REVISION_BYTES = REVISION_AT + 8;

/** Far more text and token ids than a session comes to: 16 million tokens, or 64 MiB of each. Text counts as it is unpacked. */
const MAX_EXTRA_BYTES = 128 * 2 ** 20;

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
  const { tokenIds, position } = snapshot;
  assert(position >= 0 && position <= tokenIds.length, "a state has read no more than its tokens");
  assert(snapshot.state.length > 0 || position === 0, "what has read tokens has a state");
  const half = wanted === "f16" ? toF16(snapshot.state) : undefined;
  const state = half ?? snapshot.state;
  const modelHash = Buffer.from(snapshot.modelHash);
  const json = Buffer.from(JSON.stringify(snapshot.conversation) ?? "");
  const conversation = json.length === 0 ? json : deflateRawSync(json);
  const sampler = Buffer.from(
    JSON.stringify(snapshot.sampler, (_key, value) => (typeof value === "bigint" ? String(value) : value)) ?? "",
  );
  const tokensAt = HEADER_BYTES + state.length;
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
  bytes.set(state, HEADER_BYTES);
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
  const { position, revision, expiresAtMs, precision, tokensAt, modelHashAt, conversationAt, samplerAt, checksumAt } =
    layout(buffer);
  if (!checksum(buffer.subarray(0, checksumAt)).equals(buffer.subarray(checksumAt))) {
    throw invalid("has been altered: its checksum does not match its content");
  }
  const modelHash = buffer.toString("utf8", modelHashAt, conversationAt);
  if (modelHash !== model.modelHash) {
    throw invalid(`was made by model ${modelHash}; this server runs ${model.modelHash}`);
  }
  const numTokens = (modelHashAt - tokensAt) / 4;
  if (position > numTokens) throw invalid(`is at position ${position} but holds ${numTokens} token ids`);
  // Not a Buffer, whatever the bytes came in: its `slice` would not copy.
  const stored = new Uint8Array(bytes.buffer, bytes.byteOffset + HEADER_BYTES, tokensAt - HEADER_BYTES);
  checkStateBytes(stored.length * (precision === "f16" ? 2 : 1), position, model);

  const sampler = parseSampler(parseJson("sampler", buffer.toString("utf8", samplerAt, checksumAt)));
  return {
    modelHash,
    tokenIds: tokensOf(bytes.subarray(tokensAt, modelHashAt)),
    position,
    state: precision === "f16" ? fromF16(stored) : stored,
    conversation: parseJson("conversation", inflate(buffer.subarray(conversationAt, samplerAt))),
    ...(sampler !== undefined && { sampler }),
    ...(revision > 0 && { revision }),
    ...(expiresAtMs > 0 && { expiresAtMs }),
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

/** The revision in the first `REVISION_BYTES` of a snapshot; 0 if there is none, or no snapshot begins so. */
export function revisionIn(header: Buffer): number {
  const isReadable = header.length >= REVISION_BYTES && startsAsSnapshot(header) && !isOfAnotherVersion(header);
  return isReadable ? Number(header.readBigUInt64LE(REVISION_AT)) : 0;
}

/**
 * How long the snapshot must be that begins with `header`, of at least 96 bytes. Checks nothing that lies behind them.
 * @returns undefined for one of another format version
 * @throws `invalid_snapshot` if no snapshot begins so
 */
export function declaredBytes(header: Buffer): number | undefined {
  return isOfAnotherVersion(header) ? undefined : sections(header).checksumAt + CHECKSUM_BYTES;
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
  // As numbers these may be inexact beyond 2^53, but then they are far beyond any length that passes.
  const position = Number(buffer.readBigUInt64LE(32));
  const revision = Number(buffer.readBigUInt64LE(REVISION_AT));
  const expiresAtMs = Number(buffer.readBigUInt64LE(EXPIRY_AT));
  const tokensAt = HEADER_BYTES + Number(buffer.readBigUInt64LE(40));
  const modelHashAt = tokensAt + buffer.readUInt32LE(20) * 4;
  const conversationAt = modelHashAt + buffer.readUInt32LE(16);
  const samplerAt = conversationAt + buffer.readUInt32LE(24);
  const checksumAt = samplerAt + buffer.readUInt32LE(28);
  return { precision, position, revision, expiresAtMs, tokensAt, modelHashAt, conversationAt, samplerAt, checksumAt };
}

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
    // JSON has no integer beyond 2^53 that is read as it was written.
    if (typeof seed === "string" && /^-?\d{16,19}$/.test(seed)) return { seed: BigInt(seed), numDraws };
  }
  throw invalid(`holds a sampler without a seed and a number of draws: ${JSON.stringify(given).slice(0, 100)}`);
}

function inflate(packed: Buffer): string {
  if (packed.length === 0) return "";
  try {
    return inflateRawSync(packed, { maxOutputLength: MAX_EXTRA_BYTES }).toString("utf8");
  } catch (cause) {
    throw invalid(`holds a conversation that does not unpack to at most ${MAX_EXTRA_BYTES} bytes`, cause);
  }
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

function invalid(what: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", `the snapshot ${what}`, { cause });
}
