/** The page at `/`: who gets it, with which headers. Needs a build (`npm run build`). */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import { Hono } from "hono";
import { describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import type { AppEnv } from "../../src/server/deps.ts";
import { pageRoutes } from "../../src/server/endpoints/page.ts";
import { startTestServer } from "../helpers/listening-server.ts";
import { createTestServer } from "../helpers/server-deps.ts";

const BROWSER = { accept: "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8" };
const ASSETS = path.join(import.meta.dirname, "../../dist/web/assets");
const script = readdirSync(ASSETS).find((name) => name.endsWith(".js"))!;

describe("the page", () => {
  it.each([
    [BROWSER.accept, "text/html; charset=utf-8"],
    ["text/html", "text/html; charset=utf-8"],
    ["*/*", "application/json"],
    ["application/json, text/plain, */*", "application/json"],
    ["application/json, text/html;q=0.9", "application/json"],
    [undefined, "application/json"],
  ])("is for browsers alone: accept %s gets %s", async (accept, type) => {
    const { app } = createTestServer();
    const answer = await app.request("/", { headers: accept === undefined ? {} : { accept } });
    expect(answer.headers.get("content-type")).toContain(type);
    expect(answer.headers.get("vary")).toContain("Accept");
  });

  it("allows nothing but its own files, and no inline code", async () => {
    const { app } = createTestServer();
    const answer = await app.request("/", { headers: BROWSER });
    const policy = answer.headers.get("content-security-policy")!;
    expect(policy).toMatch(/^default-src 'none'; /);
    expect(policy).not.toMatch(/unsafe|https?:|\*/);
    const html = await answer.text();
    expect(html).not.toMatch(/<style|<script(?![^>]*\ssrc=)|\son\w+=|\sstyle=/);
    for (const [, url] of html.matchAll(/(?:src|href)="([^"]+)"/g)) expect(url).toMatch(/^(\.\/assets\/|docs$)/);
  });

  it("has at most 150 kB, compressed", () => {
    const files = readdirSync(path.join(ASSETS, ".."), { recursive: true, encoding: "utf8" });
    const sizes = files
      .filter((name) => name.endsWith(".gz"))
      .map((name) => statSync(path.join(ASSETS, "..", name)).size);
    expect(sizes.length).toBeGreaterThan(2);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(150_000);
  });

  it("is open where requests need a key", async () => {
    const { app } = createTestServer({ apiKeys: ["secret"] });
    expect((await app.request("/", { headers: BROWSER })).status).toBe(200);
    expect((await app.request(`/assets/${script}`)).status).toBe(200);
    expect((await app.request("/v1/models")).status).toBe(401);
  });

  it("is served under a root path, with a final slash", async () => {
    const { app } = createTestServer({ rootPath: "/llm" });
    const redirected = await app.request("/llm", { headers: BROWSER });
    expect([redirected.status, redirected.headers.get("location")]).toEqual([302, "./llm/"]);
    expect((await app.request("/llm/", { headers: BROWSER })).headers.get("content-type")).toContain("text/html");
    expect((await app.request(`/llm/assets/${script}`)).status).toBe(200);
  });

  it("is the index where it has not been built", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "no-page-"));
    const app = new Hono<AppEnv>();
    pageRoutes(app, folder);
    app.get("/", (context) => context.json({ name: "densemamba" }));
    const answer = await app.request("/", { headers: BROWSER });
    expect(await answer.json()).toEqual({ name: "densemamba" });
    await rm(folder, { recursive: true });
  });
});

describe("a file of the page", () => {
  const { app } = createTestServer();
  const get = (headers: Record<string, string>, method = "GET") =>
    app.request(`/assets/${script}`, { method, headers });
  const content = readFileSync(path.join(ASSETS, script));

  it.each([
    ["gzip, deflate, br, zstd", "br", brotliDecompressSync],
    ["gzip", "gzip", gunzipSync],
    ["br;q=0, gzip;q=0.5", "gzip", gunzipSync],
    ["identity", null, (bytes: Buffer) => bytes],
    ["*", "br", brotliDecompressSync],
  ])("is sent as the client takes it: %s", async (accepted, encoding, decode) => {
    const answer = await get({ "accept-encoding": accepted });
    expect(answer.headers.get("content-encoding")).toBe(encoding);
    expect(answer.headers.get("content-type")).toBe("text/javascript; charset=utf-8");
    expect(answer.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
    expect(answer.headers.get("x-content-type-options")).toBe("nosniff");
    expect(answer.headers.get("vary")).toContain("Accept-Encoding");
    const bytes = Buffer.from(await answer.arrayBuffer());
    expect(answer.headers.get("content-length")).toBe(String(bytes.byteLength));
    expect(decode(bytes)).toEqual(content);
  });

  it("is not sent again to who has it", async () => {
    const headers = { "accept-encoding": "br" };
    const tag = (await get(headers)).headers.get("etag")!;
    expect(tag).toMatch(/^"[0-9a-f]{32}"$/);
    for (const method of ["GET", "HEAD"]) {
      const again = await get({ ...headers, "if-none-match": `"other", W/${tag}` }, method);
      expect([again.status, await again.text()]).toEqual([304, ""]);
    }
    expect((await get({ "accept-encoding": "gzip", "if-none-match": tag })).status).toBe(200);
  });

  it("has the same headers without its content", async () => {
    const ask = { "x-request-id": "the-same" };
    const [head, whole] = [await get(ask, "HEAD"), await get(ask)];
    expect([...head.headers]).toEqual([...whole.headers]);
    expect(await head.text()).toBe("");
  });

  it("is one of the page's", async () => {
    await using server = await startTestServer();
    const ask = (target: string) =>
      server.rawRequest(`GET ${target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
    for (const target of [
      "/assets/../../package.json",
      "/assets/..%2f..%2fpackage.json",
      "/assets/..%5c..%5cpackage.json",
      "/assets/%2e%2e/index.html",
      "/assets/index.html",
      `/assets/${script}.br`,
      "/assets/none.js",
      "/assets//etc/passwd",
      "/assets/%00",
      "/assets/%",
    ]) {
      expect(await ask(target), target).toMatch(/^HTTP\/1\.1 404 [\s\S]*route_not_found/);
    }
  });
});

describe("a WebSocket of a browser", () => {
  const KEY = "s3cret/with+all(kinds)=%";

  it.each([
    ["as it is", "plain-key_1", "plain-key_1"],
    [
      "percent-encoded",
      KEY,
      encodeURIComponent(KEY).replaceAll(/[()]/g, (char) => `%${char.charCodeAt(0).toString(16)}`),
    ],
  ])("brings its key as a subprotocol: %s", async (_, key, sent) => {
    await using server = await startTestServer({ apiKeys: [key] });
    const socket = new WebSocket(server.webSocketUrl, ["responses", `openai-insecure-api-key.${sent}`]);
    await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
    expect(socket.protocol).toBe("responses");
    socket.terminate();
  });

  it("is refused with another key", async () => {
    await using server = await startTestServer({ apiKeys: [KEY] });
    const socket = new WebSocket(server.webSocketUrl, ["responses", "openai-insecure-api-key.wrong"]);
    const error = await new Promise<Error>((resolve) => socket.once("error", resolve));
    expect(error.message).toContain("401");
  });

  it("is never told its key", async () => {
    await using server = await startTestServer({ apiKeys: ["plain"] });
    const socket = new WebSocket(server.webSocketUrl, ["openai-insecure-api-key.plain"]);
    const upgraded = await new Promise<{ headers: Record<string, unknown> }>((resolve) =>
      socket.once("upgrade", resolve).on("error", () => undefined),
    );
    expect(upgraded.headers["sec-websocket-protocol"]).toBeUndefined();
    socket.terminate();
  });
});
