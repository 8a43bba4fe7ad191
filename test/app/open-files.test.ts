/** A process that may open few files: reported at the start, survived later. */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, expect, it } from "vitest";
import { PROGRAM } from "../helpers/program.ts";
import { type ServedProcess, ServingFolder } from "../helpers/served-process.ts";

let folder: ServingFolder;
let server: ServedProcess | undefined;
beforeAll(async () => {
  folder = await ServingFolder.make();
});
afterAll(async () => {
  server?.kill("SIGKILL");
  await folder.remove();
});

it.each([40, 127])("with %d, too few to start, one line says how many are available and needed", (count) => {
  const command = `ulimit -n ${count}; exec node ${PROGRAM} serve --port 0`;
  const { status, stderr } = spawnSync("bash", ["-c", command], { encoding: "utf8", timeout: 30_000 });
  expect(status).toBe(1);
  expect(stderr).toMatch(
    new RegExp(`^error: EMFILE: this process may have ${count} files .*; it needs at least 128, .*ulimit -n.*\n$`),
  );
});

it("if connections take all, requests that need a file are refused, others are answered, and the server recovers", async () => {
  const store = ["--store-dir", path.join(folder.dir, "store")];
  server = await folder.serve(store, path.join(import.meta.dirname, "with-open-files.sh"));
  const { port } = new URL(server.url);
  /** All on one connection, which is there before the others. */
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const post = async (route: string, body: object) => {
    const headers = { "content-type": "application/json" };
    const asked = request({ agent, port, path: route, method: "POST", headers }).end(JSON.stringify(body));
    const [response] = (await once(asked, "response")) as [IncomingMessage];
    return { status: response.statusCode, text: await text(response) };
  };
  expect(await post("/v1/sessions", { session_id: "before" })).toMatchObject({ status: 201 });
  const sockets = Array.from({ length: 200 }, () => connect(Number(port), "127.0.0.1"));
  const closings = sockets.map((socket) =>
    once(
      socket.on("error", () => {}),
      "close",
    ),
  );
  // Those that the server cannot have are closed.
  await Promise.race(closings);
  expect(await post("/v1/sessions", { session_id: "meanwhile" })).toMatchObject({
    status: 503,
    text: expect.stringContaining("EMFILE"),
  });
  expect(await post("/v1/completions", { prompt: "Once", max_tokens: 2 })).toMatchObject({ status: 200 });
  for (const socket of sockets) socket.destroy();
  await Promise.all(closings);
  await expect
    .poll(async () => (await post("/v1/sessions", { session_id: "after" })).status, { timeout: 10_000 })
    .toBe(201);
  agent.destroy();
  expect(await server.stop(), server.stderr).toBe(0);
});
