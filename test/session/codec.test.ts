import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { decodeSnapshot, encodeSnapshot } from "../../src/session/codec.ts";
import type { Snapshot } from "../../src/session/store.ts";

const snapshotArbitrary: fc.Arbitrary<Snapshot> = fc
  .record({
    modelHash: fc.string({ unit: "grapheme" }),
    tokenIds: fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { maxLength: 50 }),
    part: fc.nat(1000),
    state: fc.uint8Array({ maxLength: 200 }),
    conversation: fc.option(fc.jsonValue(), { nil: undefined }),
  })
  .map(({ part, ...rest }) => ({ ...rest, position: part % (rest.tokenIds.length + 1) }));

const small: Snapshot = {
  modelHash: "abc",
  tokenIds: [5, 6, 7],
  position: 2,
  state: Uint8Array.of(1, 2, 3, 4),
  conversation: { messages: ["é"] },
};
const model = { modelHash: "abc", stateBytes: 4 };

function modelOf(snapshot: Snapshot) {
  return { modelHash: snapshot.modelHash, stateBytes: snapshot.state.length };
}

/** Changes bytes and makes the checksum right again: what somebody who knows the format would send. */
function forge(change: (bytes: Buffer) => void): Uint8Array {
  const bytes = Buffer.from(encodeSnapshot(small));
  change(bytes);
  const end = bytes.length - 32;
  bytes.set(createHash("sha256").update(bytes.subarray(0, end)).digest(), end);
  return bytes;
}

test("decoding gives back what was encoded", () => {
  fc.assert(
    fc.property(snapshotArbitrary, fc.nat(7), (snapshot, offset) => {
      const encoded = encodeSnapshot(snapshot);
      // Bytes from a socket or a file need not be aligned.
      const shifted = new Uint8Array(encoded.length + offset).subarray(offset);
      shifted.set(encoded);
      const decoded = decodeSnapshot(shifted, modelOf(snapshot));
      // JSON has no -0.
      const conversation = JSON.parse(JSON.stringify(snapshot.conversation) ?? "null");
      expect({ ...decoded, conversation: decoded.conversation ?? null }).toEqual({ ...snapshot, conversation });
    }),
  );
});

test("any changed byte is refused", () => {
  fc.assert(
    fc.property(snapshotArbitrary, fc.nat(), fc.integer({ min: 1, max: 255 }), (snapshot, at, flip) => {
      const bytes = encodeSnapshot(snapshot);
      bytes[at % bytes.length]! ^= flip;
      expect(() => decodeSnapshot(bytes, modelOf(snapshot))).toThrow(
        expect.objectContaining({ code: "invalid_snapshot" }),
      );
    }),
    { numRuns: 500 },
  );
});

test("every truncation, and anything appended, is refused", () => {
  const bytes = encodeSnapshot(small);
  for (let length = 0; length < bytes.length; length++) {
    expect(() => decodeSnapshot(bytes.subarray(0, length), model)).toThrow(/bytes long/);
  }
  expect(() => decodeSnapshot(Buffer.concat([bytes, Buffer.alloc(1)]), model)).toThrow(/bytes long; its header says/);
});

describe("with a right checksum, the message names the bound and the value", () => {
  test("another model", () => {
    expect(() => decodeSnapshot(encodeSnapshot(small), { ...model, modelHash: "xyz" })).toThrow(
      "made by model abc; this server runs xyz",
    );
  });

  test("another format version", () => {
    expect(() =>
      decodeSnapshot(
        forge((bytes) => bytes.writeUInt32LE(9, 8)),
        model,
      ),
    ).toThrow("format version 9; this server reads 1");
  });

  test("a state of another size", () => {
    expect(() => decodeSnapshot(encodeSnapshot(small), { ...model, stateBytes: 8 })).toThrow("4 bytes of state");
  });

  test("a position beyond the tokens", () => {
    expect(() =>
      decodeSnapshot(
        forge((bytes) => bytes.writeBigUInt64LE(4n, 24)),
        model,
      ),
    ).toThrow("position 4 but holds 3 token ids");
  });

  test("lengths far beyond the bytes are refused before anything is allocated", () => {
    for (const change of [
      (bytes: Buffer) => bytes.writeUInt32LE(2 ** 32 - 1, 16),
      (bytes: Buffer) => bytes.writeBigUInt64LE(2n ** 64n - 1n, 32),
      (bytes: Buffer) => bytes.writeUInt32LE(2 ** 32 - 1, 20),
    ]) {
      expect(() => decodeSnapshot(forge(change), model)).toThrow(/its header says/);
    }
  });

  test("a conversation that is not JSON", () => {
    const forged = forge((bytes) => bytes.write("x", bytes.length - 33));
    expect(() => decodeSnapshot(forged, model)).toThrow("not JSON");
  });

  test("something else altogether", () => {
    expect(() => decodeSnapshot(Buffer.alloc(100, 7), model)).toThrow("does not start as a snapshot does");
  });
});
