/**
 * Two servers that are restarted one after the other behind the proxy of compose.replicas.yaml,
 * with its own configuration: no request may notice.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { parse } from "yaml";
import { complete, type ServedProcess, ServingFolder } from "../helpers/served-process.ts";
import { freePort, ValkeyServer, WITHOUT_VALKEY } from "../helpers/valkey-server.ts";

const version = spawnSync("caddy", ["version"], { encoding: "utf8", timeout: 20_000 }).stdout;
const WITHOUT = WITHOUT_VALKEY || (version ? "" : " (skipped: caddy is not installed)");
/** Debian's, of before 2.8, has another name for it. */
const OLDER: readonly [string, string] = ["request_buffers", "buffer_requests\n\t\tmax_buffer_size"];
/** Between two requests, whatever became of those before. */
const INTERVAL_MS = 200;

describe.skipIf(WITHOUT !== "")(`a rolling restart${WITHOUT}`, { timeout: 300_000 }, () => {
  let folder: ServingFolder;
  let valkey: ValkeyServer;
  let proxy: ChildProcess;
  let url: string;
  const ports: number[] = [];
  const replicas: ServedProcess[] = [];

  const { services } = parse(readFileSync("docker/compose.replicas.yaml", "utf8"), { merge: true });
  const drain = services["densemamba-1"].environment.DENSEMAMBA_DRAIN_MS as string;
  const serve = (port: number) =>
    folder.serve(["--port", `${port}`, "--valkey-url", valkey.url, "--share-prefixes", "--drain-ms", drain]);

  beforeAll(async () => {
    [folder, valkey] = await Promise.all([ServingFolder.make(), ValkeyServer.start()]);
    for (let i = 0; i < 2; i++) ports.push(await freePort());
    replicas.push(...(await Promise.all(ports.map(serve))));
    const port = await freePort();
    const config = readFileSync("docker/Caddyfile", "utf8")
      .replace(/^:8080/m, `{\n\tadmin off\n\tauto_https off\n}\nhttp://127.0.0.1:${port}`)
      .replace(/densemamba-(\d):8080/g, (_, number) => `127.0.0.1:${ports[number - 1]}`);
    const known = /^v?2\.[0-7]\./.test(version) ? config.replace(...OLDER) : config;
    await writeFile(path.join(folder.dir, "Caddyfile"), known);
    const args = ["run", "--adapter", "caddyfile", "--config", path.join(folder.dir, "Caddyfile")];
    proxy = spawn("caddy", args, { stdio: "ignore", env: { ...process.env, HOME: folder.dir } });
    url = `http://127.0.0.1:${port}`;
    await vi.waitFor(async () => expect((await fetch(`${url}/ready`)).status).toBe(200), { timeout: 30_000 });
  });
  afterAll(async () => {
    for (const replica of replicas) replica.kill("SIGKILL");
    if (proxy !== undefined) {
      proxy.kill("SIGKILL");
      await once(proxy, "exit");
    }
    await valkey?.stop();
    await folder?.remove();
  });

  const post = (route: string, body: object) =>
    fetch(url + route, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });

  it("fails no request, and no turn of a conversation reads again what was read", async () => {
    const outcomes: Promise<string>[] = [];
    const ask = async () => {
      const response = await post("/v1/completions", { prompt: "Once upon a time", max_tokens: 16, ignore_eos: true });
      return `${response.status} ${(await response.text()).length > 0}`;
    };
    const timer = setInterval(() => outcomes.push(ask().catch((error) => String(error.cause ?? error))), INTERVAL_MS);
    await post("/v1/sessions", { session_id: "tale" });
    let isOver = false;
    const turns = (async () => {
      let numTokens = 0;
      for (let prompt = "Once upon a time"; !isOver; prompt = " One day") {
        const answer = await complete({ post }, { session_id: "tale", prompt, max_tokens: 8, ignore_eos: true });
        expect(answer.cachedTokens).toBe(Math.max(0, numTokens - 1));
        numTokens = answer.promptTokens + answer.tokenIds.length;
        await delay(INTERVAL_MS);
      }
      return numTokens;
    })();
    for (const [index, port] of ports.entries()) {
      expect(await replicas[index]!.stop()).toBe(0);
      replicas[index] = await serve(port);
      // As compose's --wait: until the proxy has found it ready.
      await delay(2000);
    }
    clearInterval(timer);
    isOver = true;
    expect(await turns).toBeGreaterThan(50);
    const all = await Promise.all(outcomes);
    console.log(
      `${all.length} requests during a rolling restart, ${all.filter((each) => each !== "200 true").length} failed`,
    );
    expect(all.filter((outcome) => outcome !== "200 true")).toEqual([]);
    expect(all.length).toBeGreaterThan(30);
  });
});
