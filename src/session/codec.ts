/**
 * A snapshot as bytes, for stores outside this process and for export. Everything is checked before it is used, lengths
 * before anything is allocated: what is truncated, altered, or made under another model or version is refused.
 *
 * Layout, little-endian, in this order:
 *   8  magic "DSMSTATE"
 *   4  format version             4  bytes of the model hash (UTF-8)
 *   4  number of token ids        4  bytes of the conversation (UTF-8 JSON; 0: undefined)
 *   8  position                   8  bytes of the state
 *   …  state, token ids (4 bytes each), model hash, conversation
 *  32  sha256 of all that precedes it
 */
import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { DenseMambaError } from "../errors.ts";
import type { Snapshot } from "./store.ts";

const MAGIC = Buffer.from("DSMSTATE");
const FORMAT_VERSION = 1;
const HEADER_BYTES = 40;
const CHECKSUM_BYTES = 32;

export interface SnapshotModel {
  readonly modelHash: string;
  /** `stateBytes` of the model's state spec. */
  readonly stateBytes: number;
}

/** The snapshot must be valid; token ids are unsigned 32-bit integers. */
export function encodeSnapshot(snapshot: Snapshot): Uint8Array {
  const { tokenIds, position, state } = snapshot;
  assert(position >= 0 && position <= tokenIds.length, "a state has read no more than its tokens");
  const modelHash = Buffer.from(snapshot.modelHash);
  const conversation = Buffer.from(JSON.stringify(snapshot.conversation) ?? "");
  const tokensAt = HEADER_BYTES + state.length;
  const modelHashAt = tokensAt + tokenIds.length * 4;
  const conversationAt = modelHashAt + modelHash.length;
  const checksumAt = conversationAt + conversation.length;

  const bytes = Buffer.allocUnsafe(checksumAt + CHECKSUM_BYTES);
  bytes.set(MAGIC, 0);
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(modelHash.length, 12);
  bytes.writeUInt32LE(tokenIds.length, 16);
  bytes.writeUInt32LE(conversation.length, 20);
  bytes.writeBigUInt64LE(BigInt(position), 24);
  bytes.writeBigUInt64LE(BigInt(state.length), 32);
  bytes.set(state, HEADER_BYTES);
  for (let i = 0; i < tokenIds.length; i++) bytes.writeUInt32LE(tokenIds[i]!, tokensAt + i * 4);
  bytes.set(modelHash, modelHashAt);
  bytes.set(conversation, conversationAt);
  bytes.set(checksum(bytes.subarray(0, checksumAt)), checksumAt);
  return bytes;
}

/**
 * @param bytes kept by the result: its `state` is a view of them.
 * @throws `invalid_snapshot`, naming what is wrong, what was expected and what was found.
 */
export function decodeSnapshot(bytes: Uint8Array, model: SnapshotModel): Snapshot {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const minBytes = HEADER_BYTES + CHECKSUM_BYTES;
  if (buffer.length < minBytes) throw invalid(`is ${buffer.length} bytes long; the shortest possible is ${minBytes}`);
  if (!buffer.subarray(0, MAGIC.length).equals(MAGIC)) throw invalid("does not start as a snapshot does");
  const version = buffer.readUInt32LE(8);
  if (version !== FORMAT_VERSION) throw invalid(`has format version ${version}; this server reads ${FORMAT_VERSION}`);

  const modelHashBytes = buffer.readUInt32LE(12);
  const numTokens = buffer.readUInt32LE(16);
  const conversationBytes = buffer.readUInt32LE(20);
  // As numbers these may be inexact beyond 2^53, but then they are far beyond any length that passes.
  const position = Number(buffer.readBigUInt64LE(24));
  const numStateBytes = Number(buffer.readBigUInt64LE(32));
  const tokensAt = HEADER_BYTES + numStateBytes;
  const modelHashAt = tokensAt + numTokens * 4;
  const conversationAt = modelHashAt + modelHashBytes;
  const checksumAt = conversationAt + conversationBytes;
  if (checksumAt + CHECKSUM_BYTES !== buffer.length) {
    throw invalid(`is ${buffer.length} bytes long; its header says ${checksumAt + CHECKSUM_BYTES}`);
  }
  if (!checksum(buffer.subarray(0, checksumAt)).equals(buffer.subarray(checksumAt))) {
    throw invalid("has been altered: its checksum does not match its content");
  }

  const modelHash = buffer.toString("utf8", modelHashAt, conversationAt);
  if (modelHash !== model.modelHash) {
    throw invalid(`was made by model ${modelHash}; this server runs ${model.modelHash}`);
  }
  if (numStateBytes !== model.stateBytes) {
    throw invalid(`holds ${numStateBytes} bytes of state; this model's state has ${model.stateBytes}`);
  }
  if (position > numTokens) throw invalid(`is at position ${position} but holds ${numTokens} token ids`);

  const tokenIds = new Array<number>(numTokens);
  for (let i = 0; i < numTokens; i++) tokenIds[i] = buffer.readUInt32LE(tokensAt + i * 4);
  return {
    modelHash,
    tokenIds,
    position,
    state: bytes.subarray(HEADER_BYTES, tokensAt),
    conversation: parseConversation(buffer.toString("utf8", conversationAt, checksumAt)),
  };
}

function parseConversation(json: string): unknown {
  if (json === "") return undefined;
  try {
    return JSON.parse(json);
  } catch (cause) {
    throw invalid("holds a conversation that is not JSON", cause);
  }
}

function checksum(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

function invalid(what: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError("invalid_snapshot", `the snapshot ${what}`, { cause });
}
