/**
 * The processes that encode and render: what a signal, a lack of files, silence and callers that
 * leave do to them.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { EncoderPool } from "../../src/tokenizer/encoder-pool.ts";
import { EncoderProcess } from "../../src/tokenizer/encoder-process.ts";
import { RenderProcess } from "../../src/tokenizer/render-process.ts";
import { WorkerProcess } from "../../src/tokenizer/worker-process.ts";
import { byteFallbackJson } from "../helpers/tiny-tokenizers.ts";

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
  const { stdout, stderr, status } = spawnSync("bash", ["-c", command], { encoding: "utf8", timeout: 60_000 });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  expect(stdout.trim().split("\n")).toEqual([
    expect.stringMatching(/^tokenizer\.json: the library ended with spawn .*EMFILE$/),
    expect.stringMatching(/^its process did not start: spawn .*EMFILE$/),
    "hello",
  ]);
});

describe("a process that is not heard of", () => {
  const start = (script: string) => {
    const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "ignore", "pipe", "ipc"] });
    return { child, worker: new WorkerProcess(child, (how) => new Error(`it ended with ${how}`)) };
  };
  const patience = (timeoutMs: number) => ({ timeoutMs, late: () => new Error(`nothing in ${timeoutMs} ms`) });

  test("is killed when its time is over, and its caller gets an error", async () => {
    const { child, worker } = start('process.on("message", () => {})');
    const closed = once(child, "close");
    await expect(worker.ask({}, patience(50))).rejects.toThrow("nothing in 50 ms");
    expect(await closed).toEqual([null, "SIGKILL"]);
    await expect(worker.ask({}, patience(50))).rejects.toThrow("nothing in 50 ms");
  });

  test("is killed when it closes its channel", async () => {
    const { worker } = start('setInterval(() => {}, 1e6); process.on("message", () => process.disconnect())');
    await expect(worker.ask({}, patience(60_000))).rejects.toThrow("it ended with SIGKILL");
  });

  test("to load a tokenizer or a template is given up, and the next caller has another one", async () => {
    const source = { path: "tokenizer.json", text: JSON.stringify(byteFallbackJson()), addedTokens: [] };
    const tooSoon = EncoderProcess.start({ ...source, library: "auto", startTimeoutMs: 1 });
    await expect(tooSoon).rejects.toMatchObject({
      code: "not_ready",
      message: "the tokenizer of tokenizer.json was not loaded within 1 ms",
    });
    let timeoutMs = 1;
    const startLater = () => EncoderProcess.start({ ...source, library: "auto", startTimeoutMs: timeoutMs });
    const pool = new EncoderPool({ start: startLater, maxProcesses: 1, timeoutMs: 60_000 });
    await expect(pool.encode("the")).rejects.toMatchObject({ code: "not_ready" });
    timeoutMs = 60_000;
    expect(await pool.encode("the")).not.toHaveLength(0);
    pool.close(new Error("the test is over"));

    const renderer = new RenderProcess(1);
    const job = { source: "", variables: { messages: [] }, nowMs: 0, timeoutMs: 5000, maxLength: 1000 };
    await expect(renderer.render(job)).rejects.toThrow("its process was not ready within 1 ms");
    renderer.close();
  });
});

describe("requests with many texts", () => {
  test("take turns, each with one text", async () => {
    const encoded: string[] = [];
    const process = {
      isAlive: true,
      encode: async (text: string) => {
        encoded.push(text);
        return new Int32Array();
      },
    } as unknown as EncoderProcess;
    const pool = new EncoderPool({ start: async () => process, maxProcesses: 1, timeoutMs: 1000 });
    const send = (texts: readonly string[], { signal } = new AbortController()) =>
      texts.map((text) => pool.encode(text, signal));
    const all = [
      send(["a1", "a2", "a3", "a4"]),
      send(["b1", "b2"]),
      send(["c1"]),
      [pool.encode("d")],
      [pool.encode("e")],
    ];
    await Promise.all(all.flat());
    expect(encoded).toEqual(["a1", "a2", "b1", "c1", "d", "e", "a3", "b2", "a4"]);
  });
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
