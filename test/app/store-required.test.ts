/** A server that must not go on without its Valkey: real processes. */
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { complete, type ServedProcess, ServingFolder } from "../helpers/served-process.ts";
import { ValkeyServer, WITHOUT_VALKEY } from "../helpers/valkey-server.ts";

const ASKED = { input: "Tell me of the king.", max_output_tokens: 2, temperature: 0 };

describe.skipIf(WITHOUT_VALKEY !== "")(`with --store-required${WITHOUT_VALKEY}`, { timeout: 120_000 }, () => {
  let folder: ServingFolder;
  let valkey: ValkeyServer;
  const running: ServedProcess[] = [];

  beforeAll(async () => {
    [folder, valkey] = await Promise.all([ServingFolder.make(), ValkeyServer.start("--requirepass", "right")]);
  });
  afterAll(async () => {
    for (const server of running) server.kill("SIGKILL");
    await valkey?.stop();
    await folder?.remove();
  });

  async function serve(password: string): Promise<ServedProcess> {
    const url = `valkey://:${password}@127.0.0.1:${valkey.port}`;
    const args = ["--valkey-url", url, "--valkey-timeout-ms", "300", "--store-required"];
    const server = await folder.serve([...args, "--store-dir", path.join(folder.dir, password)]);
    running.push(server);
    return server;
  }

  it("a wrong password prevents the start", async () => {
    await expect(serve("wrong")).rejects.toThrow(
      /ended with 1 [\s\S]*store_unavailable: the Valkey server at .*WRONGPASS/,
    );
  });

  it("an outage refuses what is stored, and nothing else, until it is over; nothing is lost or diverges", async () => {
    const server = await serve("right");
    await server.post("/v1/sessions", { session_id: "tale" });
    const turn = { session_id: "tale", prompt: "Once upon a time", max_tokens: 2, temperature: 0 };
    const before = await complete(server, turn);
    const stored = (await (await server.post("/v1/responses", ASKED)).json()) as { id: string };
    const ready = async () => (await fetch(`${server.url}/ready`)).status;
    const statusOf = async (route: string, body: object) => (await server.post(route, body)).status;
    expect(await ready()).toBe(200);

    valkey.pause();
    expect(await ready()).toBe(503);
    expect(await (await fetch(`${server.url}/ready`)).json()).toMatchObject({ status: "store_lost" });
    expect(await statusOf("/v1/completions", turn)).toBe(503);
    expect(await statusOf("/v1/responses", ASKED)).toBe(503);
    expect(await statusOf("/v1/responses", { ...ASKED, store: false, previous_response_id: stored.id })).toBe(503);
    expect(await statusOf("/v1/responses", { ...ASKED, store: false })).toBe(200);
    expect(await statusOf("/v1/completions", { ...turn, session_id: undefined })).toBe(200);

    valkey.resume();
    await expect.poll(ready, { timeout: 10_000 }).toBe(200);
    const after = await complete(server, { ...turn, prompt: " One day" });
    expect(after.cachedTokens).toBe(before.promptTokens + before.tokenIds.length - 1);
    expect(await server.stop()).toBe(0);
  });
});
