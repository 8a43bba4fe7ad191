/** Models by their name on the hub: a server on this machine, real compiler, real runtime. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HubServer } from "../helpers/hub-server.ts";
import { runProgram } from "./program-run.ts";

const PACKAGED = "models/densemamba-tales-4m";
const COMMIT = "0123456789abcdef0123456789abcdef01234567";
const VARIABLES = ["HF_ENDPOINT", "HF_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"] as const;

const before = new Map(VARIABLES.map((name) => [name, process.env[name]]));
let server: HubServer;
let folder: string;
let cache: string[];

beforeAll(async () => {
  server = await HubServer.start();
  const names = readdirSync(PACKAGED).filter((name) => /\.(?:json|safetensors|jinja)$/.test(name));
  const files = Object.fromEntries(names.map((name) => [name, readFileSync(path.join(PACKAGED, name))]));
  server.add("tellers/tales", { commit: COMMIT, files });
  folder = mkdtempSync(path.join(tmpdir(), "densemamba-hub-"));
  cache = ["--cache-dir", path.join(folder, "compiled"), "--device", "cpu"];
  for (const name of VARIABLES) delete process.env[name];
  Object.assign(process.env, {
    HF_ENDPOINT: server.endpoint,
    HF_HUB_CACHE: path.join(folder, "hub"),
    HF_TOKEN_PATH: path.join(folder, "no-token"),
  });
});
afterAll(async () => {
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
  await server.close();
  rmSync(folder, { recursive: true });
});

async function run(args: readonly string[]) {
  const program = runProgram(args);
  const exitCode = await program.exitCode;
  return { exitCode, stdout: program.stdout.text, stderr: program.stderr.text };
}

describe("a model on the hub", () => {
  it("is pulled by name, with progress on standard error and its folder on standard output", async () => {
    const { exitCode, stdout, stderr } = await run(["pull", "tellers/tales"]);
    expect(exitCode, stderr).toBe(0);
    expect(stdout).toBe(`${path.join(folder, "hub", "models--tellers--tales", "snapshots", COMMIT)}\n`);
    expect(stderr).toContain("pulling tellers/tales: 100%\n");
  });

  it("is accepted by name wherever a folder is, without asking the hub again", async () => {
    const numAsked = server.questions.length;
    const args = ["--prompt", "Once upon a time", "--max-tokens", "8", "--seed", "3", ...cache];
    const [byName, byFolder] = [
      await run(["generate", "--model", "tellers/tales", ...args]),
      await run(["generate", ...args]),
    ];
    expect(byName.exitCode, byName.stderr).toBe(0);
    expect(byName.stdout).toBe(byFolder.stdout);
    expect(byName.stderr).toContain("compiling tellers/tales to int8");
    const inspected = await run(["inspect", "--model", `tellers/tales@${COMMIT}`, "--json"]);
    expect(JSON.parse(inspected.stdout)).toMatchObject({ name: "tellers/tales", kind: "checkpoint" });
    expect(server.questions).toHaveLength(numAsked);
  });

  it("is served under its name", async () => {
    const serving = runProgram(["serve", "--port", "0", "--log-level", "warn", "--model", "tellers/tales", ...cache]);
    const [, url] = await serving.stdout.until(/ready +(http:\S+)/);
    const { data } = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
    expect(data.map(({ id }) => id)).toEqual(["tellers/tales"]);
    expect((await fetch(`${url}/v1/models/${encodeURIComponent("tellers/tales")}`)).status).toBe(200);
    serving.send("SIGTERM");
    expect(await serving.exitCode).toBe(0);
  });

  it("lends its tokenizer to a checkpoint that has none", async () => {
    const bare = path.join(folder, "bare");
    mkdirSync(bare);
    for (const name of ["config.json", "model.safetensors"]) cpSync(path.join(PACKAGED, name), path.join(bare, name));
    const args = ["generate", "--prompt", "Once upon a time", "--max-tokens", "8", "--seed", "3", ...cache];
    expect((await run([...args, "--model", bare])).stderr).toContain(
      "has no tokenizer.json; use another one with --tokenizer",
    );
    const lent = await run([...args, "--model", bare, "--tokenizer", "tellers/tales"]);
    expect(lent.exitCode, lent.stderr).toBe(0);
    expect(lent.stdout).toBe((await run(args)).stdout);
  });

  it("that does not exist is reported in one line that names folder, hub and cache", async () => {
    const absent = await run(["inspect", "--model", "tellers/absent"]);
    expect(absent).toMatchObject({ exitCode: 1, stdout: "" });
    expect(absent.stderr).toBe(
      `error: pull_failed: there is no folder tellers/absent here, and ${server.endpoint} does not show tellers/absent (401: Invalid username or password.); if it is private or gated, set HF_TOKEN\n`,
    );
    process.env.HF_HUB_OFFLINE = "1";
    const offline = await run(["inspect", "--model", "tellers/absent"]);
    expect(offline.stderr).toMatch(
      /HF_HUB_OFFLINE is set; the cache \S+ has no tellers\/absent, but tellers\/tales\n$/,
    );
    expect((await run(["inspect", "--model", "tellers/tales"])).exitCode).toBe(0);
    delete process.env.HF_HUB_OFFLINE;
  });

  it("needs a name, not a path", async () => {
    const { exitCode, stderr } = await run(["pull", "./tales"]);
    expect(exitCode).toBe(1);
    expect(stderr).toBe(
      'error: invalid_value: a model on the hub is named org/name or org/name@revision, "./tales" given\n',
    );
  });
});
