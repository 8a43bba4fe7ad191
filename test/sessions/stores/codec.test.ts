import { createHash } from "node:crypto";
import { deflateRawSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  decodeSnapshot,
  encodeSnapshot,
  isDamaged,
  maxSnapshotBytes,
  readHeader,
  USUAL_HEADER_BYTES,
} from "../../../src/sessions/stores/codec.ts";
import type { Snapshot } from "../../../src/sessions/stores/snapshot.ts";

/** Beyond safe integers. */
const hugeSeed = fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n).filter((seed) => !Number.isSafeInteger(Number(seed)));

const snapshotArbitrary: fc.Arbitrary<Snapshot> = fc
  .record({
    modelHash: fc.string({ unit: "grapheme" }),
    tokenIds: fc.array(fc.integer({ min: 0, max: 2 ** 32 - 1 }), { maxLength: 50 }),
    part: fc.nat(1000),
    state: fc.uint8Array({ maxLength: 200 }),
    history: fc.record({
      key: fc.string({ minLength: 1, unit: "grapheme" }),
      numTokens: fc.nat(10_000_000),
      seenIds: fc.uint8Array({ minLength: 1, maxLength: 9 }),
    }),
    conversation: fc.option(fc.jsonValue(), { nil: undefined }),
    sampler: fc.record({ seed: fc.oneof(fc.integer(), hugeSeed), numDraws: fc.nat() }),
    revision: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    expiresAtMs: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    has: fc.record({ history: fc.boolean(), sampler: fc.boolean(), revision: fc.boolean(), expiry: fc.boolean() }),
  })
  .map(({ part, has, history, sampler, revision, expiresAtMs, ...rest }) => ({
    ...rest,
    position: rest.state.length === 0 ? 0 : (has.history ? history.numTokens : 0) + (part % (rest.tokenIds.length + 1)),
    ...(has.history && { history }),
    ...(has.sampler && { sampler }),
    ...(has.revision && { revision }),
    ...(has.expiry && { expiresAtMs }),
  }));

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

/** Changes bytes and corrects the checksum, as an attacker who knows the format would. */
function forge(change: (bytes: Buffer) => void): Uint8Array {
  const bytes = Buffer.from(encodeSnapshot(small));
  change(bytes);
  const end = bytes.length - 32;
  bytes.set(createHash("sha256").update(bytes.subarray(0, end)).digest(), end);
  return bytes;
}

const SECTIONS = ["references", "seenIds", "state", "tokenIds", "modelHash", "conversation", "sampler"];
const lengthAt = (section: string) => 56 + 8 * SECTIONS.indexOf(section);

function withConversation(packed: Buffer, inflatedBytes: number): Uint8Array {
  const bytes = Buffer.from(encodeSnapshot({ ...small, conversation: undefined }));
  bytes.writeBigUInt64LE(BigInt(packed.length), lengthAt("conversation"));
  bytes.writeUInt32LE(inflatedBytes, 20);
  const content = Buffer.concat([bytes.subarray(0, -32), packed]);
  return Buffer.concat([content, createHash("sha256").update(content).digest()]);
}

test("decoding returns what was encoded", () => {
  fc.assert(
    fc.property(snapshotArbitrary, fc.nat(7), (snapshot, offset) => {
      const encoded = encodeSnapshot(snapshot);
      expect(isDamaged(encoded)).toBe(false);
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
      // Another version cannot be judged.
      expect(isDamaged(bytes)).toBe([5, 6].includes(bytes.readUInt32LE(8)));
    }),
    { numRuns: 500 },
  );
});

test("a snapshot from before there were checkpoints is read", () => {
  const bytes = forge((bytes) => bytes.writeUInt32LE(5, 8));
  expect(decodeSnapshot(bytes, model)).toEqual(decodeSnapshot(encodeSnapshot(small), model));
  expect(readHeader(Buffer.from(bytes))).toMatchObject({ references: [], numCheckpoints: 0 });
});

test("every truncation and anything appended is refused", () => {
  const bytes = encodeSnapshot(small);
  for (let length = 0; length < bytes.length; length++) {
    expect(() => decodeSnapshot(bytes.subarray(0, length), model)).toThrow(/bytes long/);
    expect(isDamaged(bytes.subarray(0, length))).toBe(true);
  }
  expect(() => decodeSnapshot(Buffer.concat([bytes, Buffer.alloc(1)]), model)).toThrow(/bytes long; its header says/);
});

describe("with a valid checksum, the message names the bound and the value", () => {
  test("another model", () => {
    expect(() => decodeSnapshot(encodeSnapshot(small), { ...model, modelHash: "xyz" })).toThrow(
      "made by model abc; this server runs xyz: other weights, another --precision or --state-precision, or operators of another device",
    );
  });

  test("another format version", () => {
    expect(() =>
      decodeSnapshot(
        forge((bytes) => bytes.writeUInt32LE(9, 8)),
        model,
      ),
    ).toThrow("format version 9; this server reads 5 and 6");
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

  test("lengths beyond the bytes are refused before anything is allocated", () => {
    for (const change of [
      (bytes: Buffer) => bytes.writeBigUInt64LE(10n * 2n ** 30n, lengthAt("state")),
      ...SECTIONS.slice(1).map((name) => (bytes: Buffer) => bytes.writeBigUInt64LE(2n ** 64n - 1n, lengthAt(name))),
    ]) {
      expect(() => decodeSnapshot(forge(change), model)).toThrow(/its header says/);
    }
  });

  test("an unknown precision", () => {
    expect(() =>
      decodeSnapshot(
        forge((bytes) => bytes.writeUInt32LE(7, 12)),
        model,
      ),
    ).toThrow("a state of precision 7");
  });

  test("f32 that is declared to be f16, and so too long", () => {
    expect(() =>
      decodeSnapshot(
        forge((bytes) => bytes.writeUInt32LE(1, 12)),
        model,
      ),
    ).toThrow("8 bytes of state; this model's state has 4");
  });

  test("a missing state although tokens were read", () => {
    const empty = encodeSnapshot({ ...small, state: new Uint8Array(0), position: 0 });
    empty.writeBigUInt64LE(1n, 24);
    const end = empty.length - 32;
    empty.set(createHash("sha256").update(empty.subarray(0, end)).digest(), end);
    expect(() => decodeSnapshot(empty, model)).toThrow("0 bytes of state; this model's state has 4");
  });

  test("an invalid sampler", () => {
    for (const sampler of [{ seed: 1 }, { seed: "1", numDraws: 0 }, { seed: 1, numDraws: -1 }, [], "x"]) {
      const bytes = encodeSnapshot({ ...small, sampler: sampler as never });
      expect(() => decodeSnapshot(bytes, model)).toThrow("a sampler without a seed and a number of draws");
    }
  });

  test("a conversation that is not JSON", () => {
    expect(() => decodeSnapshot(withConversation(deflateRawSync("{"), 1), model)).toThrow("not JSON");
  });

  test("a conversation that cannot be inflated, or inflates to too much", () => {
    const bomb = deflateRawSync(Buffer.alloc(2 ** 27 + 1));
    for (const [packed, inflatedBytes] of [
      [Buffer.from([7]), 10],
      [bomb, 10],
      [bomb, 2 ** 27 + 1],
      [deflateRawSync(Buffer.from("[]")), 10],
    ] as const) {
      expect(() => decodeSnapshot(withConversation(packed, inflatedBytes), model)).toThrow(
        `does not unpack to the ${inflatedBytes} bytes that it should have`,
      );
    }
  });

  test("something else", () => {
    expect(() => decodeSnapshot(Buffer.alloc(200, 7), model)).toThrow("does not start as a snapshot does");
  });
});

test("a record has no state", () => {
  const record = { ...small, tokenIds: [], position: 0, state: new Uint8Array(0) };
  expect(decodeSnapshot(encodeSnapshot(record), model)).toEqual(record);
});

test("the header is read without the rest", () => {
  const state = new Uint8Array(3000);
  const history = { key: "segment::1", numTokens: 70, seenIds: Uint8Array.of(3) };
  const bytes = encodeSnapshot({
    ...small,
    state,
    position: 71,
    history,
    revision: 77,
    isShared: true,
    isSegment: true,
    checkpointKeys: ["checkpoint::a", "checkpoint::b"],
  });
  const found = {
    revision: 77,
    isShared: true,
    isSegment: true,
    references: ["segment::1", "checkpoint::a", "checkpoint::b"],
    numCheckpoints: 2,
    stateBytes: 3000,
    numHistoryTokens: 70,
    headerBytes: 112 + 38,
    bytes: bytes.length,
  };
  expect(readHeader(bytes.subarray(0, USUAL_HEADER_BYTES))).toEqual(found);
  const plain = encodeSnapshot(small);
  const nothing = {
    revision: 0,
    isShared: false,
    isSegment: false,
    references: [],
    numCheckpoints: 0,
    stateBytes: small.state.length,
    numHistoryTokens: 0,
    headerBytes: 112,
    bytes: plain.length,
  };
  expect(readHeader(plain)).toEqual(nothing);
  expect(() => readHeader(Buffer.alloc(200, 7))).toThrow("does not start as a snapshot does");
});

test("a position is neither within the history nor beyond all tokens", () => {
  const whole = { ...small, history: { key: "segment::1", numTokens: 70 } };
  expect(decodeSnapshot(encodeSnapshot({ ...whole, position: 73 }), model)).toEqual({ ...whole, position: 73 });
  expect(() => decodeSnapshot(encodeSnapshot({ ...whole, position: 69 }), model)).toThrow(
    "position 69, within the 70 tokens of its history",
  );
  expect(() => encodeSnapshot({ ...whole, position: 74 })).toThrow(/no more than its tokens/);
});

describe("a state stored in f16", () => {
  const snapshotOf = (...values: number[]): Snapshot => ({
    ...small,
    state: new Uint8Array(Float32Array.from(values).buffer),
  });
  const roundTrip = (snapshot: Snapshot) =>
    decodeSnapshot(encodeSnapshot(snapshot, { precision: "f16" }), modelOf(snapshot));

  test("takes half the bytes", () => {
    const snapshot = snapshotOf(1, 2, 3, 4);
    const saved = encodeSnapshot(snapshot).length - encodeSnapshot(snapshot, { precision: "f16" }).length;
    expect(saved).toBe(8);
  });

  test("is restored within half a step of f16", () => {
    const value = fc.float({ min: -65504, max: 65504, noNaN: true });
    fc.assert(
      fc.property(fc.array(value, { minLength: 1 }), (values) => {
        const { state } = roundTrip(snapshotOf(...values));
        const restored = new Float32Array(new Uint8Array(state).buffer);
        for (const [i, number] of values.entries()) {
          expect(Math.abs(restored[i]! - number)).toBeLessThanOrEqual(Math.max(Math.abs(number) * 2 ** -11, 2 ** -25));
        }
      }),
    );
  });

  test("stays f32 if a number is beyond f16 or not finite", () => {
    for (const value of [65520, -1e9, Number.POSITIVE_INFINITY, Number.NaN]) {
      const snapshot = snapshotOf(1 / 3, value);
      expect(roundTrip(snapshot)).toEqual(snapshot);
    }
  });
});

test("a session of the default model takes its state, its ids, and less than half a kilobyte", () => {
  const stateBytes = 6 * 512 * (16 + 3) * 4;
  const tokenIds = Array.from({ length: 8000 }, (_, i) => i % 4096);
  const snapshot: Snapshot = {
    modelHash: "a".repeat(64),
    tokenIds,
    position: 7999,
    state: new Uint8Array(stateBytes),
    conversation: { createdAtMs: 1_700_000_000_000, lastUsedAtMs: 1_700_000_000_000, spans: [] },
    sampler: { seed: 123456789, numDraws: 4000 },
    revision: 12,
  };
  expect(encodeSnapshot(snapshot).length - stateBytes - tokenIds.length * 4).toBeLessThan(512);
});

test("a snapshot that is larger than any session is refused", () => {
  const conversation = "x".repeat(maxSnapshotBytes({ stateBytes: 0 }));
  expect(() => encodeSnapshot({ ...small, conversation })).toThrow(/cannot be stored: one of this model has at most/);
});
