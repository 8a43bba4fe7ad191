/** The README's first requests, run as they stand against a server. */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ProgramRun, runProgram } from "./program-run.ts";

const ADDRESS = "127.0.0.1:8080";
const run = promisify(execFile);
let folder: string;
let server: ProgramRun;
let address: string;
let readme: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-readme-"));
  readme = await readFile("README.md", "utf8");
  server = runProgram(["serve", "--port", "0", "--log-level", "warn", "--cache-dir", folder, "--device", "cpu"]);
  address = (await server.stdout.until(/ready +http:\/\/(\S+)/))[1]!;
});
afterAll(async () => {
  server.send("SIGTERM");
  await server.exitCode;
  await rm(folder, { recursive: true, force: true });
});

/** The block of `language` that contains `text`. */
function block(language: string, text: string): string {
  const blocks = [...readme.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, "g"))].map(
    ([, code]) => code!,
  );
  const found = blocks.find((code) => code.includes(text));
  expect(found, `a ${language} block with ${text}`).toBeDefined();
  return found!.replaceAll(ADDRESS, address);
}

/** The answers of a script's curl commands. */
async function shell(script: string): Promise<Record<string, unknown>[]> {
  const lines = script.replaceAll(/\\\n\s*/g, "").replaceAll(/\n/g, "; echo\n");
  const { stdout } = await run("bash", ["-ec", lines]);
  return stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

describe("the README", () => {
  it("shows a first completion with the fields and counts that it really has", async () => {
    const [answer] = await shell(block("sh", '"seed": 7'));
    const shown = JSON.parse(block("json", "cmpl-"));
    expect(answer!.usage).toEqual(shown.usage);
    expect(Object.keys(answer!)).toEqual(expect.arrayContaining(Object.keys(shown)));
    const choices = answer!.choices as { text: string }[];
    expect(Object.keys(choices[0]!)).toEqual(expect.arrayContaining(Object.keys(shown.choices[0])));
  });

  it("shows a session in which only what is new is read", async () => {
    const [session, , last] = await shell(block("sh", '"session_id": "tale"'));
    expect(session).toMatchObject({ id: "tale", state_bytes: 272_384 });
    const { prompt_tokens: prompt, prompt_tokens_details: details } = last!.usage as {
      prompt_tokens: number;
      prompt_tokens_details: { cached_tokens: number };
    };
    expect(readme).toContain(
      `"prompt_tokens": ${prompt}, "prompt_tokens_details": {"cached_tokens": ${details.cached_tokens}, …}`,
    );
  });

  it("shows a chat over WebSocket whose second turn continues from the first", async () => {
    const script = run(process.execPath, ["--input-type=module", "-e", block("js", "WebSocket")]);
    const { stdout, stderr } = await script;
    expect(stderr).toBe("");
    const cached = [...stdout.matchAll(/\[(\d+) prompt tokens, (\d+) of them cached\]/g)].map((match) =>
      Number(match[2]),
    );
    expect(cached).toHaveLength(2);
    expect(cached[0]).toBe(0);
    expect(cached[1]).toBeGreaterThanOrEqual(11);
  });
});
