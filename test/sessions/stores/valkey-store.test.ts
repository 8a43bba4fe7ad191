import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { ValkeyStore, type ValkeyStoreOptions } from "../../../src/sessions/stores/valkey-store.ts";
import { ValkeyServer, WITHOUT_VALKEY } from "../../helpers/valkey-server.ts";
import { describesAStateStore, keysOf, MODEL, snapshot, snapshotOf } from "./store-contract.ts";

const cleanups: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function open(options: Partial<ValkeyStoreOptions> & { url: string }): Promise<ValkeyStore> {
  const store = await ValkeyStore.open({
    keyPrefix: `test ${Math.random()}:`,
    model: MODEL,
    nowMs: Date.now,
    // On a busy machine an answer may take longer than the default.
    timeoutMs: 60_000,
    ...options,
  });
  cleanups.push(() => store.close());
  return store;
}

/** Retries until it succeeds: the client reconnects in its own time. */
const eventually = <T>(ask: () => Promise<T>) => vi.waitFor(ask, { timeout: 10_000, interval: 20 });

describe.skipIf(WITHOUT_VALKEY !== "")(`over a real server${WITHOUT_VALKEY}`, () => {
  let server: ValkeyServer;
  let redis: Redis;
  beforeAll(async () => {
    server = await ValkeyServer.start();
    redis = new Redis(server.port);
  });
  afterAll(async () => {
    redis.disconnect();
    await server.stop();
  });

  describesAStateStore(async () => ({
    store: await open({ url: server.url }),
    advance: (ms) => server.passTime(ms),
    isRealTime: true,
  }));

  test("stores with the same key prefix share, others do not", async () => {
    const [a, b, other] = await Promise.all(
      ["same:", "same:", "other:"].map((keyPrefix) => open({ url: server.url, keyPrefix })),
    );
    await a!.put("x", snapshot());
    expect(await b!.get("x")).toMatchObject(snapshot());
    expect(await other!.get("x")).toBeUndefined();
    const claim = await a!.claim("x", { ttlMs: 1000 });
    expect(await b!.claim("x", { ttlMs: 1000 })).toBeUndefined();
    await claim!.release();
    expect((await b!.claim("x", { ttlMs: 1000 }))!.fence).toBeGreaterThan(claim!.fence);
  });

  test("of concurrent claims one succeeds", async () => {
    const stores = await Promise.all([1, 2, 3, 4].map(() => open({ url: server.url, keyPrefix: "race:" })));
    const claims = await Promise.all(stores.flatMap((store) => [1, 2, 3].map(() => store.claim("x", { ttlMs: 5000 }))));
    expect(claims.filter((claim) => claim !== undefined)).toHaveLength(1);
  });

  test("the server expires snapshots, and a sweep removes old claims", async () => {
    const store = await open({ url: server.url, keyPrefix: "expiry:" });
    await store.put("x", snapshot(), { expiresAtMs: Date.now() + 5000 });
    await store.put("y", snapshot());
    await (await store.claim("x", { ttlMs: 5000 }))!.release();
    expect(await redis.pttl("expiry:state:x")).toBeGreaterThan(4000);
    expect(await redis.pttl("expiry:state:y")).toBe(-1);
    expect(await redis.hlen("expiry:claims")).toBe(1);
    await store.sweepNow();
    expect(await redis.hlen("expiry:claims")).toBe(1);
    const [field] = await redis.hkeys("expiry:claims");
    await redis.hset("expiry:claims", field!, `7:${Date.now() - 86_500_000}`);
    await store.sweepNow();
    expect(await redis.hlen("expiry:claims")).toBe(0);
    await store.delete("x");
    expect(await redis.pttl("expiry:state:x")).toBeGreaterThan(6 * 86_400_000);
  });

  test("revisions and deletions are read without the snapshot", async () => {
    const store = await open({ url: server.url });
    expect(await store.revisionOf("x")).toBe("unknown");
    await store.put("x", snapshot());
    expect(await store.revisionOf("x")).toEqual({ revision: 0, exists: true });
    await store.put("x", snapshot("again", { revision: 1_700_000_000_000_123 }));
    expect(await store.revisionOf("x")).toEqual({ revision: 1_700_000_000_000_123, exists: true });
    await store.delete("x");
    expect(await store.revisionOf("x")).toBe("deleted");
    expect(await keysOf(store, "")).toEqual([]);
  });

  test("the revision of an evicted session is remembered, of a cache or a segment it is not", async () => {
    const store = await open({ url: server.url, keyPrefix: "evicted:" });
    await store.put("x", snapshot("x", { revision: 7 }), { expiresAtMs: Date.now() + 60_000 });
    await store.put("cache", snapshot("c", { revision: 8 }), { isCache: true });
    await store.put("segment::1", snapshot("p", { isSegment: true, position: 0, state: new Uint8Array(0) }));
    for (const key of ["x", "cache", "segment::1"]) {
      expect(await store.revisionOf(key)).toMatchObject({ exists: true });
      await redis.del(`evicted:state:${key}`);
    }
    expect(await store.revisionOf("x")).toEqual({ revision: 7, exists: false });
    expect(await store.has("x")).toBe(false);
    for (const key of ["cache", "segment::1"]) expect(await store.revisionOf(key)).toBe("unknown");
    // A claim that the server has forgotten is stale.
    const claim = (await store.claim("x", { ttlMs: 60_000 }))!;
    await redis.del("evicted:claims");
    expect(await claim.renew()).toBe(false);
    await expect(store.put("x", snapshot("late"), { fence: claim.fence })).rejects.toThrow(/has been advanced/);
    const second = (await store.claim("x", { ttlMs: 60_000 }))!;
    const older = store.put("x", snapshot("older", { revision: 6 }), { fence: second.fence });
    await expect(older).rejects.toThrow(/has been advanced/);
    await redis.hset("evicted:revisions", "something old", "7:1000");
    await store.sweepNow();
    expect(await redis.hlen("evicted:revisions")).toBe(1);
  });

  test("unreferenced segments are removed in the second hour", async () => {
    let nowMs = Date.now();
    const store = await open({ url: server.url, keyPrefix: "parts:", nowMs: () => nowMs });
    const segment = { isSegment: true, position: 0, state: new Uint8Array(0) } as const;
    const history = (key: string, numTokens: number) => ({ history: { key, numTokens }, position: numTokens });
    await store.put("segment::1", snapshot("1", segment));
    await store.put("segment::2", snapshot("2", { ...segment, history: { key: "segment::1", numTokens: 3 } }));
    await store.put("segment::3", snapshot("3", segment));
    await store.put("session::a", snapshot("a", history("segment::2", 6)));
    await store.put("session::b", snapshot("b", history("segment::2", 6)));
    await store.delete("session::a");
    const sweep = async () => {
      nowMs += 3_700_000;
      await store.sweepNow();
    };
    await sweep();
    expect(await keysOf(store, "segment:")).toEqual(["segment::1", "segment::2", "segment::3"]);
    await sweep();
    expect(await keysOf(store, "segment:")).toEqual(["segment::1", "segment::2"]);
    await store.delete("session::b");
    await sweep();
    await sweep();
    expect(await keysOf(store, "")).toEqual([]);
  });

  test("checkpoints stay as long as their session", async () => {
    let nowMs = Date.now();
    const store = await open({ url: server.url, keyPrefix: "checkpoints:", nowMs: () => nowMs });
    // More references than are read with a snapshot's header.
    const checkpointKeys = Array.from({ length: 200 }, (_, i) => `checkpoint:0123456789abcdef:ckpt_${i}`);
    const segment = { isSegment: true, position: 0, state: new Uint8Array(0) } as const;
    await store.put("segment::1", snapshot("1", segment));
    const history = { key: "segment::1", numTokens: 3 };
    await store.put(checkpointKeys[199]!, snapshot("c", { isSegment: true, history, position: 3 }));
    await store.put("session::a", snapshot("a", { checkpointKeys }));
    for await (const { referencedBytes } of store.list("session:")) expect(referencedBytes).toBe(199 * 16);
    const sweepTwice = async () => {
      for (let i = 0; i < 2; i++) {
        nowMs += 3_700_000;
        await store.sweepNow();
      }
    };
    await sweepTwice();
    expect(await keysOf(store, "")).toEqual([checkpointKeys[199], "segment::1", "session::a"]);
    await store.delete("session::a");
    await sweepTwice();
    expect(await keysOf(store, "")).toEqual([]);
  });

  test("a policy that evicts sessions is warned of", async () => {
    const warnings: string[] = [];
    const evicting = await ValkeyServer.start("--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru");
    const keeping = await ValkeyServer.start("--maxmemory", "10mb", "--maxmemory-policy", "volatile-ttl");
    cleanups.push(() => Promise.all([evicting.stop(), keeping.stop()]));
    for (const { url } of [keeping, evicting]) await open({ url, onWarning: (message) => warnings.push(message) });
    expect(warnings).toEqual([expect.stringContaining("maxmemory-policy is allkeys-lru")]);
  });

  test("a list of several scan steps has each key once", async () => {
    const store = await open({ url: server.url });
    const keys = Array.from({ length: 2500 }, (_, i) => `session:a:${String(i).padStart(4, "0")}`);
    for (let i = 0; i < keys.length; i += 250) {
      await Promise.all(keys.slice(i, i + 250).map((key) => store.put(key, snapshot())));
    }
    expect(await keysOf(store, "session:a:")).toEqual(keys);
  });

  describe("when a value on the server has been changed", () => {
    async function tampered(change: (value: Buffer) => Buffer): Promise<ValkeyStore> {
      const store = await open({ url: server.url, keyPrefix: "tampered:" });
      await store.put("x", snapshot());
      await redis.set("tampered:state:x", change((await redis.getBuffer("tampered:state:x"))!));
      return store;
    }

    test("a flipped bit is refused", async () => {
      const store = await tampered((value) => {
        value[70]! ^= 1;
        return value;
      });
      await expect(store.get("x")).rejects.toMatchObject({ code: "invalid_snapshot" });
    });

    test("a fragment, or something else: refused, and the client reconnects", async () => {
      for (const change of [(value: Buffer) => value.subarray(0, 100), () => Buffer.from("hello")]) {
        const store = await tampered(change);
        await expect(store.get("x")).rejects.toThrow(/answered with something other than what was stored under x/);
        expect(await eventually(() => store.get("y"))).toBeUndefined();
      }
    });

    test("another key's snapshot is refused", async () => {
      const store = await open({ url: server.url, keyPrefix: "swapped:" });
      await store.put("mine", snapshot("mine"));
      await store.put("yours", snapshot("yours"));
      await redis.rename("swapped:state:yours", "swapped:state:mine");
      await expect(store.get("mine")).rejects.toMatchObject({ code: "store_unavailable" });
    });

    test("another type is refused", async () => {
      const store = await open({ url: server.url, keyPrefix: "type:" });
      await redis.lpush("type:state:x", "hello");
      await expect(store.get("x")).rejects.toThrow(/cannot be used: WRONGTYPE/);
      await expect(store.has("x")).rejects.toMatchObject({ code: "store_unavailable" });
    });

    test("another model's snapshot is refused with its name", async () => {
      const store = await open({ url: server.url, keyPrefix: "model:" });
      await store.put("x", snapshot());
      const other = await open({ url: server.url, keyPrefix: "model:", model: { ...MODEL, modelHash: "other" } });
      await expect(other.get("x")).rejects.toThrow("made by model m; this server runs other");
    });
  });

  test("a server without memory left refuses puts clearly, and can still be read", async () => {
    const full = await ValkeyServer.start("--maxmemory", "3mb", "--maxmemory-policy", "noeviction");
    cleanups.push(() => full.stop());
    const store = await open({ url: full.url });
    await store.put("small", snapshot());
    const fill = async () => {
      for (let i = 0; i < 20; i++) await store.put(`${i}`, snapshotOf(500_000));
    };
    await expect(fill()).rejects.toThrow(/cannot be used: .*OOM/);
    expect(await store.get("small")).toMatchObject(snapshot());
    // Over its limit, not just at it.
    const direct = new Redis(full.port);
    cleanups.push(() => direct.quit());
    await direct.config("SET", "maxmemory", "1mb");
    expect(await store.delete("0")).toBe(true);
    expect([await store.has("0"), await store.revisionOf("0")]).toEqual([false, "deleted"]);
    await direct.config("SET", "maxmemory", "3mb");
    await store.put("small", snapshot("again"));
  });

  test("a server that stops answering fails in time, and is used again when it answers", async () => {
    const own = await ValkeyServer.start();
    cleanups.push(() => own.stop());
    const store = await open({ url: own.url, timeoutMs: 200 });
    await store.put("x", snapshot());
    const claim = await store.claim("x", { ttlMs: 60_000 });
    own.pause();
    const startedAt = performance.now();
    await expect(store.get("x")).rejects.toMatchObject({
      code: "store_unavailable",
      message: expect.stringMatching(/127\.0\.0\.1:\d+ cannot be used: no answer within 200 ms/),
    });
    await expect(claim!.renew()).rejects.toMatchObject({ code: "store_unavailable" });
    await claim!.release();
    expect(performance.now() - startedAt).toBeLessThan(20_000);
    own.resume();
    expect(await eventually(() => store.get("x"))).toMatchObject(snapshot());
  });

  test("a dead connection is replaced", async () => {
    let numConnections = 0;
    const proxy = createServer((client) => {
      const isFirst = ++numConnections === 1;
      const upstream = connect(server.port, "127.0.0.1");
      for (const socket of [client, upstream]) socket.on("error", () => undefined);
      cleanups.push(() => [client, upstream].map((socket) => socket.destroy()));
      client.pipe(upstream).pipe(client);
      if (isFirst) deaden = () => upstream.unpipe(client);
    }).listen(0, "127.0.0.1");
    let deaden = () => {};
    await once(proxy, "listening");
    cleanups.push(() => proxy.close());
    const { port } = proxy.address() as AddressInfo;
    const store = await open({ url: `redis://127.0.0.1:${port}`, timeoutMs: 200 });
    await store.put("x", snapshot());
    deaden();
    await expect(store.get("x")).rejects.toThrow(/no answer within 200 ms/);
    expect(await eventually(() => store.get("x"))).toMatchObject(snapshot());
    expect(numConnections).toBe(2);
  });

  test("a restarted server fails at once meanwhile, and is used afterwards", async () => {
    const own = await ValkeyServer.start();
    cleanups.push(() => own.stop());
    const store = await open({ url: own.url });
    await store.put("x", snapshot());
    await own.stop();
    for (let i = 0; i < 2; i++) await expect(store.get("x")).rejects.toMatchObject({ code: "store_unavailable" });
    await own.restart();
    expect(await eventually(() => store.get("x"))).toBeUndefined();
    await store.put("x", snapshot("new"));
    expect(await store.get("x")).toMatchObject(snapshot("new"));
  });

  test("the error for a wrong password does not contain it", async () => {
    const guarded = await ValkeyServer.start("--requirepass", "right");
    cleanups.push(() => guarded.stop());
    const good = await open({ url: `redis://:right@127.0.0.1:${guarded.port}` });
    await good.put("x", snapshot());
    const bad = await open({ url: `redis://:wrong-secret@127.0.0.1:${guarded.port}`, timeoutMs: 500 });
    const error = await bad.get("x").catch((reason) => reason);
    expect(error).toMatchObject({ code: "store_unavailable" });
    expect(JSON.stringify([error, error.message, error.cause])).not.toContain("wrong-secret");
  });
});

describe("something that is not a Valkey server", () => {
  async function impostor(onConnection: (socket: Socket) => void): Promise<string> {
    const sockets = new Set<Socket>();
    const server = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => undefined);
      onConnection(socket);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    cleanups.push(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });
    return `redis://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  const impostors: readonly [string, (socket: Socket) => void][] = [
    ["accepts and never answers", () => undefined],
    ["hangs up", (socket) => socket.end()],
    ["speaks HTTP", (socket) => socket.on("data", () => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"))],
    ["sends garbage", (socket) => socket.on("data", () => socket.write(Buffer.alloc(1000, 0xa5)))],
    ["announces more than it sends", (socket) => socket.on("data", () => socket.write("$9999999999\r\nabc"))],
    ["answers everything with an error", (socket) => socket.on("data", () => socket.write("-ERR no\r\n"))],
    ["answers everything with OK", (socket) => socket.on("data", () => socket.write("+OK\r\n"))],
    ["answers everything with a number", (socket) => socket.on("data", () => socket.write(":7\r\n"))],
    ["answers everything with a list", (socket) => socket.on("data", () => socket.write("*2\r\n:1\r\n*1\r\n:2\r\n"))],
    ["drips", (socket) => socket.on("data", () => setInterval(() => socket.write("\r"), 20).unref())],
  ];

  test.each(impostors)("%s: every command fails in time", async (_, onConnection) => {
    const startedAt = performance.now();
    const store = await open({ url: await impostor(onConnection), timeoutMs: 150 });
    const list = async () => {
      for await (const listed of store.list("")) expect(listed).toBeUndefined();
    };
    const commands = [
      () => store.get("x"),
      () => store.has("x"),
      () => store.put("x", snapshot()),
      () => store.delete("x"),
      () => store.claim("x", { ttlMs: 1000 }),
      list,
    ];
    for (const ask of commands) await expect(ask()).rejects.toMatchObject({ code: "store_unavailable" });
    expect(performance.now() - startedAt).toBeLessThan(20_000);
  });

  test("without a server it fails at once", async () => {
    const store = await open({ url: "redis://127.0.0.1:1", timeoutMs: 500 });
    await expect(store.get("x")).rejects.toThrow(/127\.0\.0\.1:1 cannot be used: .*ECONNREFUSED/);
  });

  test("a malformed URL is refused without repeating its password", async () => {
    for (const url of ["http://user:secret@host", "redis://", "localhost:6379", "", "redis://[", "valkeysss://host"]) {
      await expect(open({ url })).rejects.toMatchObject({
        code: "invalid_config",
        message: expect.not.stringContaining("secret"),
      });
    }
  });
});
