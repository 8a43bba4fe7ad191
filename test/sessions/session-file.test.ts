/** A file is untrusted: what could not be continued is refused, in bounded time and memory. */
import { createHash } from "node:crypto";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { deflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { Conversations } from "../../src/sessions/conversations.ts";
import { digestText, type MessageSpan, NO_MESSAGES } from "../../src/sessions/messages.ts";
import { encodeSnapshot } from "../../src/sessions/stores/codec.ts";
import { MemoryStore } from "../../src/sessions/stores/memory-store.ts";
import type { Snapshot } from "../../src/sessions/stores/snapshot.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";

const MAX_UNREAD = 1000;
const manifest = fakeManifest(400);

function make() {
  let lastId = 0;
  const store = new MemoryStore({ maxBytes: 1e9 });
  const newId = () => `id-${++lastId}`;
  const deps = { store, manifest, newId, nowMs: () => 1, maxUnreadTokens: MAX_UNREAD };
  return { store, conversations: new Conversations(deps) };
}

function conversation(spans: readonly MessageSpan[] = [], more: object = {}) {
  const numPreambleTokens = spans.length === 0 ? 3 : 0;
  return {
    numPreambleTokens,
    spans,
    messages: NO_MESSAGES,
    ...digestText(""),
    createdAtMs: 0,
    lastUsedAtMs: 0,
    ...more,
  };
}

function snapshot(more: Partial<Snapshot> = {}): Snapshot {
  return {
    modelHash: manifest.modelHash,
    tokenIds: [1, 2, 3],
    position: 2,
    state: new Uint8Array(24),
    conversation: conversation(),
    ...more,
  };
}

/** With a valid checksum, as an attacker who knows the format would send it. */
function forge(given: Snapshot, change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(encodeSnapshot(given));
  change(bytes);
  const end = bytes.length - 32;
  bytes.set(createHash("sha256").update(bytes.subarray(0, end)).digest(), end);
  return bytes;
}

/** A file whose conversation is this text. */
function withJson(json: string | Buffer, inflatedBytes = json.length): Buffer {
  const plain = encodeSnapshot(snapshot({ conversation: undefined }));
  const packed = deflateRawSync(json);
  const header = Buffer.from(plain.subarray(0, -32));
  header.writeBigUInt64LE(BigInt(packed.length), 96);
  header.writeUInt32LE(inflatedBytes, 20);
  const content = Buffer.concat([header, packed]);
  return Buffer.concat([content, createHash("sha256").update(content).digest()]);
}

const silent = (count: number): MessageSpan[] => Array.from({ length: count }, () => ({ numTokens: 0, messages: [] }));
const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const segment = (tokenIds: readonly number[], more: Partial<Snapshot> = {}) =>
  snapshot({ tokenIds, position: 0, state: new Uint8Array(0), conversation: { spans: [] }, isSegment: true, ...more });
const history = (numTokens: number) => ({ history: { key: "-", numTokens } });
const after = (numTokens: number, more: Partial<Snapshot> = {}) =>
  snapshot({ ...history(numTokens), position: numTokens + 2, ...more });

const checkpoint = (more: Partial<Snapshot> = {}) => snapshot({ isSegment: true, ...more });
/** The last of the checkpoints is the current one. */
const listing = (...ids: string[]) => {
  const all = ids.map((id, i) => ({ id, number: i + 1, numTokens: 3, createdAtMs: 0 }));
  return snapshot({
    conversation: conversation([], { checkpoints: { current: "ckpt_b", all } }),
    checkpointKeys: ["0"],
  });
};

const ids = (length: number) => Array.from({ length }, (_, i) => i % 400);

const refused: readonly [string, () => Uint8Array, string | RegExp][] = [
  [
    "127 MiB of brackets",
    () => withJson("[".repeat(127 * 2 ** 20)),
    "conversation of 133169152 bytes; at most 4194304",
  ],
  [
    "the same, with an understated length",
    () => withJson("[".repeat(127 * 2 ** 20), 1000),
    "does not unpack to the 1000 bytes",
  ],
  ["4 MiB of brackets", () => withJson("[".repeat(2 ** 22)), "more than 8 levels deep"],
  [
    "4 MiB of empty lists",
    () => withJson(`[${"[],".repeat(1_300_000)}0]`),
    /has \d+ values in its messages; at most 100000/,
  ],
  [
    "a million spans",
    () => encodeSnapshot(snapshot({ conversation: conversation(silent(1e6)) })),
    /conversation of \d+ bytes; at most 4194304/,
  ],
  [
    "too many spans",
    () => encodeSnapshot(snapshot({ conversation: conversation(silent(4097)) })),
    "4097 spans of messages in one piece; at most 4096",
  ],
  [
    "tokens without a state",
    () => encodeSnapshot(snapshot({ position: 0, state: new Uint8Array(0) })),
    "of which its state has read none",
  ],
  [
    "a state that has read nothing",
    () => encodeSnapshot(snapshot({ position: 0 })),
    "3 tokens, of which its state has read none",
  ],
  [
    "NaN in the state",
    () => encodeSnapshot(snapshot({ state: floats(0, 1, 2, 3, Number.NaN, 5) })),
    "in its state's tensor conv.0 that is not finite, or not below 2^50",
  ],
  [
    "an infinite number",
    () => encodeSnapshot(snapshot({ state: floats(0, Number.NEGATIVE_INFINITY, 2, 3, 4, 5) })),
    "tensor ssm.0",
  ],
  ["a number near overflow", () => encodeSnapshot(snapshot({ state: floats(0, 1, 2 ** 50, 3, 4, 5) })), "tensor ssm.0"],
  [
    "a state of another size",
    () => encodeSnapshot(snapshot({ state: new Uint8Array(20) })),
    "20 bytes of state; this model's state has 24",
  ],
  [
    "too many unread tokens",
    () => encodeSnapshot(snapshot({ tokenIds: ids(1500) })),
    "1498 tokens that its state has not read; at most 1000",
  ],
  [
    "15 million unread tokens",
    () => forge(snapshot(), (bytes) => bytes.writeBigUInt64LE(60_000_000n, 80)),
    /bytes long; its header says/,
  ],
  [
    "too many ids in one piece",
    () => encodeSnapshot(snapshot({ tokenIds: ids(263_145), position: 263_145 })),
    "263145 token ids in one piece; at most 263144",
  ],
  [
    "an id outside the vocabulary",
    () => encodeSnapshot(snapshot({ tokenIds: [1, 400, 3] })),
    "token id 400; those of this model are 0 to 399",
  ],
  [
    "more draws than tokens",
    () => encodeSnapshot(snapshot({ sampler: { seed: 1, numDraws: 4 } })),
    "4 draws of random numbers; it holds 3 tokens",
  ],
  [
    "more sampled tokens than tokens",
    () => encodeSnapshot(snapshot({ conversation: conversation([], { numSampled: 4 }) })),
    "4 sampled tokens; it holds 3",
  ],
  [
    "messages of more tokens than there are",
    () => encodeSnapshot(snapshot({ conversation: conversation([{ numTokens: 4, messages: [] }]) })),
    "claims 4 tokens; the snapshot holds 3",
  ],
  [
    "a preamble of more tokens than there are",
    () => encodeSnapshot(snapshot({ conversation: conversation([], { numPreambleTokens: 4 }) })),
    "claims 4 tokens",
  ],
  ["a history that is not there", () => encodeSnapshot(after(70)), "continues after 70 tokens; 0 come before it"],
  ["a segment alone", () => encodeSnapshot(segment([1])), "ends within its history"],
  [
    "a segment after the snapshot",
    () => Buffer.concat([encodeSnapshot(snapshot()), encodeSnapshot(segment([1]))]),
    "continues after its end",
  ],
  [
    "a missing segment",
    () => Buffer.concat([encodeSnapshot(segment([1, 2])), encodeSnapshot(after(3))]),
    "continues after 3 tokens; 2 come before it",
  ],
  [
    "a checkpoint that the snapshot does not name",
    () => Buffer.concat([encodeSnapshot(checkpoint()), encodeSnapshot(snapshot())]),
    "names 0 checkpoints; 1 are before it",
  ],
  [
    "a checkpoint that is not there",
    () => encodeSnapshot(snapshot({ checkpointKeys: ["0"] })),
    "names 1 checkpoints; 0 are before it",
  ],
  [
    "a checkpoint that the session does not list",
    () => Buffer.concat([encodeSnapshot(checkpoint()), encodeSnapshot(snapshot({ checkpointKeys: ["0"] }))]),
    "lists 0 checkpoints besides the current one; it holds 1",
  ],
  [
    "a list without the current one",
    () => Buffer.concat([encodeSnapshot(checkpoint()), encodeSnapshot(listing("ckpt_a"))]),
    "lists 1 checkpoints besides the current one; it holds 1",
  ],
  [
    "one checkpoint twice",
    () => Buffer.concat([encodeSnapshot(checkpoint()), encodeSnapshot(listing("ckpt_b", "ckpt_b"))]),
    "lists 0 checkpoints besides the current one; it holds 1",
  ],
  [
    "the id of another's checkpoint",
    () => Buffer.concat([encodeSnapshot(checkpoint()), encodeSnapshot(listing("session:x:y", "ckpt_b"))]),
    "the stored conversation is malformed",
  ],
  [
    "NaN in a checkpoint",
    () =>
      Buffer.concat([
        encodeSnapshot(checkpoint({ state: floats(0, 1, 2, 3, Number.NaN, 5) })),
        encodeSnapshot(listing("ckpt_a", "ckpt_b")),
      ]),
    "in its state's tensor conv.0 that is not finite",
  ],
  [
    "a checkpoint in place of a segment",
    () => Buffer.concat([encodeSnapshot(checkpoint()), encodeSnapshot({ ...after(3), checkpointKeys: ["0"] })]),
    "continues after 3 tokens; 0 come before it",
  ],
  [
    "a segment that is too long",
    () => Buffer.concat([encodeSnapshot(segment(ids(65_537))), encodeSnapshot(after(65_537))]),
    "65537 token ids in one piece; at most 65536",
  ],
  [
    "segments that claim more tokens than there are",
    () =>
      Buffer.concat([
        encodeSnapshot(segment([1], { conversation: { spans: [{ numTokens: 9, messages: [] }] } })),
        encodeSnapshot(after(1)),
      ]),
    "9 in them; it holds 4",
  ],
  [
    "a hundred thousand empty segments",
    () => Buffer.concat([...Array(100_000).fill(encodeSnapshot(segment([]))), encodeSnapshot(snapshot())]),
    "more than 8192 pieces",
  ],
  ["nothing", () => new Uint8Array(0), "0 bytes long"],
];

describe("refused, and nothing of it is stored", () => {
  test.each(refused)("%s", async (_, file, message) => {
    const { store, conversations } = make();
    const bytes = file();
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    await expect(conversations.importSession("", bytes, "s")).rejects.toMatchObject({
      code: "invalid_snapshot",
      message: expect.stringMatching(typeof message === "string" ? escaped(message) : message),
    });
    delay.disable();
    // Of one piece; on a busy machine. The bomb took 28 s.
    expect(delay.max / 1e6).toBeLessThan(500);
    expect(store.stats().numSnapshots).toBe(0);
    expect(store.stats().bytes).toBe(0);
  });
});

function escaped(text: string): RegExp {
  return new RegExp(text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
}

test("a file of many segments is exported as it was imported", async () => {
  const { conversations } = make();
  const segments = Array.from({ length: 40 }, (_, i) => segment(ids(65_536), i === 0 ? {} : history(65_536 * i)));
  const file = Buffer.concat([...segments, after(65_536 * 40)].map((piece) => encodeSnapshot(piece)));
  const numTokens = 65_536 * 40 + 3;
  expect(await conversations.importSession("", file, "s")).toMatchObject({ numTokens });
  const exported = await conversations.exportSession("", "s");
  // The session has a checkpoint, which it is itself.
  expect(Math.abs(exported.length - file.length)).toBeLessThan(120);
  expect(await conversations.importSession("", exported, "t")).toMatchObject({ numTokens });
});

test("a changed file is refused or can be continued, in bounded time", async () => {
  const { conversations } = make();
  const message = { role: "user", at: 0, length: 1 };
  const spans = [{ numTokens: 3, messages: [message, { role: "assistant", content: "x" }] }];
  const good = [
    segment(ids(50), { conversation: { spans } }),
    after(50, { conversation: conversation(spans), sampler: { seed: 1, numDraws: 2 } }),
  ].map((piece) => Buffer.from(encodeSnapshot(piece)));
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((seed / 2 ** 32) * below);
  };
  const VALUES = [0, 1, 0x7f, 0x80, 0xff];
  let numImported = 0;
  let worstMs = 0;
  for (let i = 0; i < 3000; i++) {
    const pieces = good.map((piece) => Buffer.from(piece));
    const piece = pieces[random(2)]!;
    for (let changes = 1 + random(3); changes > 0; changes--) {
      // The header as often as all the rest.
      piece[random(random(2) === 0 ? 130 : piece.length - 32)] = random(2) === 0 ? VALUES[random(5)]! : random(256);
    }
    if (random(8) > 0) piece.set(createHash("sha256").update(piece.subarray(0, -32)).digest(), piece.length - 32);
    const kinds = [
      pieces,
      pieces.toReversed(),
      [pieces[0]!, ...pieces],
      pieces.slice(random(2)),
      [piece.subarray(0, random(piece.length))],
    ];
    const file = Buffer.concat(kinds[random(8)] ?? pieces);
    const startedAt = performance.now();
    try {
      const { id } = await conversations.importSession("", file);
      numImported++;
      await conversations.exportSession("", id);
      const lease = await conversations.open("", { type: "session", id }, undefined);
      await lease.release();
      await conversations.deleteSession("", id);
    } catch (error) {
      expect(error).toMatchObject({ code: "invalid_snapshot" });
    }
    worstMs = Math.max(worstMs, performance.now() - startedAt);
  }
  expect(numImported).toBeGreaterThan(10);
  expect(worstMs).toBeLessThan(1000);
}, 60_000);
