/**
 * Two servers as two processes, one Valkey server, and a proxy that knows nothing: one
 * conversation, wherever it is asked.
 */

import { readdir } from "node:fs/promises";
import { createServer, request as httpRequest, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { complete, readStream, type ServedProcess, ServingFolder } from "../helpers/served-process.ts";
import { ValkeyServer, WITHOUT_VALKEY } from "../helpers/valkey-server.ts";
import { isEnd, open } from "../helpers/websocket-client.ts";

const PROMPT = "Once upon a time there was a king who";
const SAMPLED = { temperature: 0.8, seed: 5, ignore_eos: true };

interface ResponseObject {
  readonly id: string;
  readonly usage: {
    readonly total_tokens: number;
    readonly input_tokens: number;
    readonly input_tokens_details: { readonly cached_tokens: number };
  };
}

describe.skipIf(WITHOUT_VALKEY !== "")(`replicas${WITHOUT_VALKEY}`, () => {
  let folder: ServingFolder;
  let valkey: ValkeyServer;
  let replicas: ServedProcess[];
  let proxy: RoundRobin;

  beforeAll(async () => {
    [folder, valkey] = await Promise.all([ServingFolder.make(), ValkeyServer.start()]);
    const shared = ["--valkey-url", valkey.url, "--valkey-timeout-ms", "500", "--share-prefixes"];
    replicas = await Promise.all([
      folder.serve([...shared, "--store-dir", path.join(folder.dir, "store")]),
      folder.serve(shared),
    ]);
    proxy = await RoundRobin.start(replicas.map(({ url }) => url));
  });
  afterAll(async () => {
    proxy?.close();
    for (const replica of replicas ?? []) replica.kill("SIGKILL");
    await valkey?.stop();
    await folder?.remove();
  });

  it("serve one session turn by turn, each turn on the other one, and read nothing again", async () => {
    await proxy.post("/v1/sessions", { session_id: "tale" });
    await replicas[0]!.post("/v1/sessions", { session_id: "at-one-server" });
    proxy.asked.length = 0;
    let numTokens = 0;
    for (const prompt of [PROMPT, " One day", " The princess", " At last"]) {
      const turn = { prompt, max_tokens: 10, ...SAMPLED };
      const answer = await complete(proxy, { session_id: "tale", ...turn });
      // All but the token that was sampled last, which no state has read.
      expect(answer.cachedTokens).toBe(Math.max(0, numTokens - 1));
      expect(answer).toEqual(await complete(replicas[0]!, { session_id: "at-one-server", ...turn }));
      numTokens = answer.promptTokens + answer.tokenIds.length;
    }
    expect(proxy.asked.join()).toMatch(/^(0,1,0,1|1,0,1,0)$/);
  });

  it("continue a response of the other one", async () => {
    proxy.asked.length = 0;
    let previous: ResponseObject | undefined;
    for (const input of ["Tell me of the king.", "And then?", "And the end?"]) {
      const more = previous === undefined ? {} : { previous_response_id: previous.id };
      const answer = await proxy.post("/v1/responses", { input, max_output_tokens: 8, temperature: 0, ...more });
      const response = (await answer.json()) as ResponseObject;
      expect(response.usage.input_tokens_details.cached_tokens).toBe(previous ? previous.usage.total_tokens - 1 : 0);
      previous = response;
    }
    expect(proxy.asked.join()).toMatch(/^(0,1,0|1,0,1)$/);
  });

  it("do not advance one session at once: the second one has to wait", async () => {
    const [one, other] = replicas as [ServedProcess, ServedProcess];
    const turn = { session_id: "tale", prompt: " But", ...SAMPLED };
    const leave = new AbortController();
    const long = { ...turn, max_tokens: 16_000, stream: true, return_token_ids: true };
    let refused: Promise<Response> | undefined;
    const streaming = readStream(await one.post("/v1/completions", long, leave.signal), () => {
      refused ??= other.post("/v1/completions", { ...turn, max_tokens: 4 });
      void refused.then(() => leave.abort());
    });
    await expect(streaming).rejects.toThrow(/abort/i);
    const { status, headers } = await refused!;
    expect([status, headers.get("retry-after")]).toEqual([409, "1"]);
    // Nobody was told of the end of what was left: the session is where it was, and free.
    await expect.poll(async () => (await other.post("/v1/completions", { ...turn, max_tokens: 4 })).status).toBe(200);
  });

  it("read a prompt's beginning once, whichever of them is asked", async () => {
    const prompt = `${"the old king and the young queen went into the wood ".repeat(12)}and`;
    const first = await complete(replicas[0]!, { prompt, max_tokens: 4, temperature: 0 });
    expect(first.cachedTokens).toBe(0);
    // What is kept of it is kept in the background.
    await expect.poll(async () => numKeys("state:prefix:*")).toBeGreaterThan(0);
    const second = await complete(replicas[1]!, { prompt, max_tokens: 4, temperature: 0 });
    expect(second.cachedTokens).toBe(first.promptTokens - 1);
    expect(second.tokenIds).toEqual(first.tokenIds);
  });

  it("put nowhere what is not to be stored", async () => {
    const before = [await numKeys("state:[^p]*"), await filesOnDisk()];
    const client = await open(replicas[0]!);
    const body = { model: undefined, max_output_tokens: 4, temperature: 0 };
    client.create({ ...body, store: false, input: "Tell me a secret." });
    await client.until(isEnd);
    client.create({ ...body, store: false, input: "More.", previous_response_id: client.responseIds[0] });
    const messages = await client.until(isEnd, 2);
    const { usage } = messages.filter(isEnd)[1]!.response as ResponseObject;
    expect(usage.input_tokens_details.cached_tokens).toBeGreaterThan(0);
    expect([await numKeys("state:[^p]*"), await filesOnDisk()]).toEqual(before);
    expect(await numKeys("state:unstored*")).toBe(0);
    // Where it is to be stored it is: the state and the record.
    client.create({ ...body, input: "No secret." });
    await client.until(isEnd, 3);
    client.socket.close();
    expect([await numKeys("state:[^p]*"), await filesOnDisk()]).toEqual(before.map((count) => count + 2));
  });

  it("continue while the Valkey server is gone, report it, and restore what it missed", async () => {
    const [one, other] = replicas as [ServedProcess, ServedProcess];
    const turn = { session_id: "tale", prompt: " And so", max_tokens: 6, ...SAMPLED };
    const isShared = () => one.metric("densemamba_store_tier_available", 'store="conversations",tier="shared"');
    const before = await complete(one, turn);
    expect(await isShared()).toBe(1);

    await valkey.stop();
    const without = await complete(one, turn);
    expect(without.cachedTokens).toBe(before.promptTokens + before.tokenIds.length - 1);
    expect(await isShared()).toBe(0);
    expect(
      await one.metric("densemamba_store_tier_failures_total", 'store="conversations",tier="shared"'),
    ).toBeGreaterThan(0);
    expect(one.stderr).toMatch(/"level":40.*the shared tier of stored states cannot be (read|written)/);

    await valkey.restart();
    let last = without;
    await expect
      .poll(
        async () => {
          last = await complete(one, turn);
          return isShared();
        },
        { timeout: 20_000, interval: 200 },
      )
      .toBe(1);
    expect(one.stderr).toMatch(/"level":30.*the shared tier of stored states can be written again/);
    await expect.poll(() => numKeys("state:session::tale"), { timeout: 20_000 }).toBe(1);
    const elsewhere = await complete(other, turn);
    expect(elsewhere.cachedTokens).toBe(last.promptTokens + last.tokenIds.length - 1);
  });

  /** On the Valkey server. */
  async function numKeys(pattern: string): Promise<number> {
    const redis = new Redis(valkey.url.replace("valkey", "redis"));
    const keys = await redis.keys(`densemamba:${pattern}`);
    redis.disconnect();
    return keys.length;
  }

  async function filesOnDisk(): Promise<number> {
    const names = await readdir(path.join(folder.dir, "store/conversations"), { recursive: true, withFileTypes: true });
    return names.filter((entry) => entry.isFile() && entry.name !== "lock.json").length;
  }
});

/** Each request goes to the next server, whatever it asks. */
class RoundRobin {
  /** Which server each request went to. */
  readonly asked: number[] = [];
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(targets: readonly string[]): Promise<RoundRobin> {
    let next = 0;
    const server = createServer((incoming, outgoing) => {
      const target = next++ % targets.length;
      proxy.asked.push(target);
      const { method, headers } = incoming;
      const onward = httpRequest(targets[target] + incoming.url!, { method, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(outgoing);
      });
      onward.on("error", () => outgoing.destroy());
      incoming.pipe(onward);
    });
    const proxy = new RoundRobin(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  post(route: string, body: object): Promise<Response> {
    const { port } = this.#server.address() as AddressInfo;
    return fetch(`http://127.0.0.1:${port}${route}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
