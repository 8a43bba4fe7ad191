/** The processes that encode and render: what a signal, a lack of files and callers that leave do to them. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { EncoderPool } from "../../src/tokenizer/encoder-pool.ts";
import type { EncoderProcess } from "../../src/tokenizer/encoder-process.ts";
import { RenderProcess } from "../../src/tokenizer/render-process.ts";

const onLinux = test.skipIf(process.platform !== "linux");

onLinux("a terminal that closes does not end a rendering: the signal is for the server", async () => {
  const renderer = new RenderProcess();
  const job = { variables: { messages: [] }, nowMs: 0, timeoutMs: 5000, maxLength: 1000 };
  const before = new Set(children());
  expect(await renderer.render({ ...job, source: "ready" })).toBe("ready");
  const [child] = children().filter((id) => !before.has(id));
  const rounds = "{% for a in range(1000) %}{% for b in range(1000) %}{% endfor %}{% endfor %}";
  const rendered = renderer.render({ ...job, source: `${rounds}rendered` });
  process.kill(child!, "SIGHUP");
  expect(await rendered).toBe("rendered");
  renderer.close();
});

onLinux("where no more files can be opened a process does not start, and nothing else happens", () => {
  const script = path.join(import.meta.dirname, "without-files.ts");
  const command = `ulimit -n 64 && exec "${process.execPath}" --import tsx "${script}"`;
  const { stdout, stderr, status } = spawnSync("bash", ["-c", command], { encoding: "utf8" });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout.trim().split("\n")).toEqual([
    expect.stringMatching(/^tokenizer\.json: the library ended with spawn .*EMFILE$/),
    expect.stringMatching(/^its process did not start: spawn .*EMFILE$/),
    "hello",
  ]);
});

describe("texts whose callers have left", () => {
  test("are not held by those that wait, nor encoded", async () => {
    const encoded: string[] = [];
    let begin!: (process: EncoderProcess) => void;
    const started = new Promise<EncoderProcess>((resolve) => {
      begin = resolve;
    });
    const pool = new EncoderPool({ start: () => started, maxProcesses: 1, timeoutMs: 1000 });
    const abort = new AbortController();
    const left = Promise.allSettled(["first", "second"].map((text) => pool.encode(text, abort.signal)));
    const stays = pool.encode("third");
    abort.abort();
    expect(await left).toMatchObject(Array(2).fill({ status: "rejected", reason: { code: "aborted" } }));
    const process = {
      isAlive: true,
      kill: () => {},
      encode: async (text: string) => {
        encoded.push(text);
        return new Int32Array();
      },
    };
    begin(process as unknown as EncoderProcess);
    await stays;
    expect(encoded).toEqual(["third"]);
  });
});

function children(): number[] {
  const tasks = readdirSync(`/proc/${process.pid}/task`);
  const ids = tasks.flatMap((task) => readFileSync(`/proc/${process.pid}/task/${task}/children`, "utf8").split(" "));
  return ids.filter((id) => id !== "").map(Number);
}
