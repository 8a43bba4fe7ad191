/**
 * The commands, end to end in this process: real compiler, real runtime, the packaged model and a
 * tiny one.
 */
import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type FloatDtype, widen } from "../../src/model/dtypes.ts";
import { readRawTensors, writeRawTensors } from "../helpers/checkpoints.ts";
import { PROGRAM } from "../helpers/program.ts";
import { SHARED_ARTIFACTS } from "../helpers/shared-artifacts.ts";
import { runProgram } from "./program-run.ts";

const TINY = "test/fixtures/torch-tiny-densemamba";
let folder: string;
let cache: string[];

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "densemamba-cli-"));
  cache = ["--cache-dir", SHARED_ARTIFACTS, "--device", "cpu"];
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function output(args: readonly string[], stdin?: string): Promise<string> {
  const run = runProgram(args, stdin);
  expect(await run.exitCode, run.stderr.text).toBe(0);
  return run.stdout.text;
}

async function failure(args: readonly string[]): Promise<{ exitCode: number; message: string }> {
  const run = runProgram(args);
  const exitCode = await run.exitCode;
  expect(run.stdout.text).toBe("");
  return { exitCode, message: asText(run.stderr.text) };
}

/** What `serve` ends with is a line of its log where stderr is no terminal. */
function asText(stderr: string): string {
  return stderr.replace(/^\{"level":60,.*\}$/m, (line) => `error: ${JSON.parse(line).msg}`);
}

describe("a model that does not exist", () => {
  it.each([
    ["--model", "/nowhere", "--model names no folder that exists: /nowhere given"],
    ["--model", "package.json", "--model must name a folder or a .pth or .safetensors file: package.json given"],
    ["--tokenizer", "./nowhere", "--tokenizer names no folder that exists: ./nowhere given"],
  ])("is reported with its option: %s %s", async (option, given, message) => {
    for (const command of [["serve"], ["generate", "--prompt", "x"]]) {
      const result = await failure([...command, option, given, ...cache]);
      expect(result).toEqual({ exitCode: 2, message: `error: invalid_config: ${message}\n` });
    }
  });
});

describe("score", () => {
  it("gives the reference's log-probabilities, and only JSON on standard output", async () => {
    const { sequences } = JSON.parse(await readFile(path.join(TINY, "expected.json"), "utf8"));
    const { token_ids: ids, logits } = sequences[0] as { token_ids: number[]; logits: number[][] };
    const args = ["score", "--model", TINY, "--token-ids", ids.join(","), "--top", "3", "--precision", "f32", ...cache];
    const { positions } = JSON.parse(await output(args));
    expect(positions).toHaveLength(ids.length);
    expect(positions[0]).toEqual({ token_id: ids[0], logprob: null, top: [] });
    for (let index = 1; index < ids.length; index++) {
      const expected = logSoftmax(logits[index - 1]!);
      const { token_id: id, logprob, top } = positions[index];
      expect(id).toBe(ids[index]);
      expect(Math.abs(logprob - expected[id]!)).toBeLessThan(1e-4);
      const likeliest = [...expected.keys()].sort((a, b) => expected[b]! - expected[a]!).slice(0, 3);
      expect(top.map((token: { token_id: number }) => token.token_id)).toEqual(likeliest);
      for (const token of top) expect(Math.abs(token.logprob - expected[token.token_id]!)).toBeLessThan(1e-4);
    }
  });

  it("reads token ids from standard input, also as a JSON array, and lists candidates only on request", async () => {
    const args = ["score", "--model", TINY, "--token-ids", "-", "--precision", "f32", ...cache];
    const { positions } = JSON.parse(await output(args, "[18, 35]\n"));
    expect(positions).toEqual([
      { token_id: 18, logprob: null, top: [] },
      { token_id: 35, logprob: expect.any(Number), top: [] },
    ]);
  });

  it.each([
    ["a token id outside the vocabulary", ["--token-ids", "1,48"], /48/],
    ["a negative one", ["--token-ids", "1,-2"], /"-2" given/],
    ["a fractional one", ["--token-ids", "1.5"], /"1.5" given/],
    ["none", ["--token-ids", ","], /at least one/],
    ["too many candidates", ["--token-ids", "1", "--top", "65"], /at most 64, 65 given/],
  ])("refuses %s", async (_, args, message) => {
    const result = await failure(["score", "--model", TINY, "--precision", "f32", ...cache, ...args]);
    expect(result.exitCode).toBe(1);
    expect(result.message).toMatch(/^error: invalid_value: /m);
    expect(result.message).toMatch(message);
  });
});

describe("inspect", () => {
  it("shows what a session costs", async () => {
    const text = await output(["inspect", "--device", "cpu"]);
    expect(text).toMatch(/^family +dense_mamba$/m);
    expect(text).toMatch(/^parameters +4\.34M/m);
    expect(text).toMatch(/^precision +int8/m);
    expect(text).toMatch(/^state +266 KiB \(272384 bytes\)/m);
    expect(text).toMatch(/^sessions +3942 per GiB$/m);
    expect(text).toMatch(/^0–6 +conv \[3,512\] 6 KiB, ssm \[16,512\] 32 KiB$/m);
    expect(text).toMatch(/^ +3 +38 KiB +\d{3}k /m);
    expect(text).toMatch(/^ +3 {4}○─○─●$/m);
  });

  it("gives the same as JSON, for a checkpoint and for its artifact", async () => {
    const out = path.join(folder, "inspected");
    await output(["compile", "--model", TINY, "--out", out, "--precision", "f32"]);
    const checkpoint = JSON.parse(await output(["inspect", "--model", TINY, "--precision", "f32", "--json"]));
    const artifact = JSON.parse(await output(["inspect", "--model", out, "--json"]));
    expect(artifact.kind).toBe("artifact");
    for (const key of ["name", "family", "parameters", "precision", "state_bytes_per_session", "state"]) {
      expect(artifact[key]).toEqual(checkpoint[key]);
    }
    const elements = checkpoint.state.map(({ shape }: { shape: number[] }) => shape.reduce((a, b) => a * b));
    expect(checkpoint.state_bytes_per_session).toBe(4 * elements.reduce((a: number, b: number) => a + b));
  });
});

describe("compile", () => {
  it("writes a folder that --model accepts as it is, including the tokenizer", async () => {
    const out = path.join(folder, "compiled");
    await output(["compile", "--out", out, "--device", "cpu"]);
    const args = ["generate", "--prompt", "Once upon a time", "--max-tokens", "8", "--seed", "3"];
    const fromArtifact = await output([...args, "--model", out, ...cache]);
    expect(fromArtifact.trim()).not.toBe("");
    expect(fromArtifact).toBe(await output([...args, ...cache]));
  });

  it("without --out, leaves it in the cache, where the next start finds it", async () => {
    const ahead = ["--model", TINY, "--precision", "f32", "--device", "cpu", "--cache-dir", path.join(folder, "ahead")];
    expect(await output(["compile", ...ahead])).toContain(path.join(folder, "ahead"));
    const later = runProgram(["score", "--token-ids", "1", ...ahead]);
    expect(await later.exitCode).toBe(0);
    expect(later.stderr.text).not.toContain("compiling");
  });

  it("refuses to run an artifact in another precision than its own", async () => {
    const out = path.join(folder, "f32");
    await output(["compile", "--model", TINY, "--out", out, "--precision", "f32"]);
    const result = await failure(["score", "--model", out, "--token-ids", "1", "--precision", "int8", ...cache]);
    expect(result.message).toContain("compiled to f32");
    expect(result.exitCode).toBe(2);
  });

  it("halves the state if asked to, and refuses to run the artifact with states of another precision", async () => {
    const out = path.join(folder, "half-states");
    await output(["compile", "--model", TINY, "--out", out, "--precision", "int8", "--state-precision", "f16"]);
    const { state } = JSON.parse(await output(["inspect", "--model", out, "--json"]));
    for (const { name, dtype } of state) expect(dtype, name).toBe(name.startsWith("ssm") ? "f16" : "f32");
    const score = ["score", "--model", out, "--token-ids", "1,2", ...cache];
    expect(await output([...score, "--state-precision", "f16"])).toBe(await output(score));
    const result = await failure([...score, "--state-precision", "f32"]);
    expect(result.message).toContain("compiled with states in f16; it cannot be served with states in f32");
    expect(result.exitCode).toBe(2);
  });

  it("refuses to overwrite the checkpoint", async () => {
    const result = await failure(["compile", "--model", TINY, "--out", TINY]);
    expect(result.message).toContain("another folder");
  });
});

describe("generate", () => {
  const args = ["generate", "--max-tokens", "12", "--seed", "5"];

  it("streams the same text for the same seed, whichever runtime computes it", async () => {
    // Our own operators, which only the native one has, round 8-bit weights' activations otherwise
    // than ONNX Runtime's.
    const alike = [...args, "--prompt", "Once upon a time", "--kernels", "off", ...cache];
    const [native, portable] = [await output(alike), await output([...alike, "--runtime", "portable"])];
    expect(native).toBe(portable);
    expect(native.trim().length).toBeGreaterThan(10);
  });

  it("reads the prompt from standard input and can echo it", async () => {
    const text = await output([...args, "--prompt", "-", "--echo", ...cache], "Once upon a time");
    expect(text.startsWith("Once upon a time")).toBe(true);
    expect(text).toBe(`Once upon a time${await output([...args, "--prompt", "Once upon a time", ...cache])}`);
  });

  it("compiles at the first start, with progress on standard error, and never again", async () => {
    const fresh = ["--cache-dir", path.join(folder, "fresh"), "--device", "cpu"];
    const first = runProgram([...args, "--prompt", "x", ...fresh]);
    expect(await first.exitCode).toBe(0);
    expect(first.stderr.text).toContain("compiling densemamba-tales-4m to int8: 100%\n");
    const later = runProgram([...args, "--prompt", "x", ...fresh]);
    expect(await later.exitCode).toBe(0);
    expect(later.stderr.text).not.toContain("compiling");
    expect(later.stdout.text).toBe(first.stdout.text);
  });

  it("refuses a model without a tokenizer", async () => {
    const result = await failure([...args, "--prompt", "x", "--model", TINY, ...cache]);
    expect(result).toMatchObject({ exitCode: 1, message: expect.stringContaining("has no tokenizer.json") });
  });
});

describe("a broken model", () => {
  const copyOf = async (source: string, name: string) => {
    const dir = path.join(folder, name);
    await cp(source, dir, { recursive: true });
    return dir;
  };

  it("with weights that are not finite is refused, unless they are allowed", async () => {
    const dir = await copyOf(TINY, "non-finite");
    const file = path.join(dir, "model.safetensors");
    const bytes = await readFile(file);
    // The file's last f32.
    bytes.writeUInt32LE(0x7fc00000, bytes.length - 4);
    await writeFile(file, bytes);
    const args = ["compile", "--model", dir, "--out", path.join(folder, "non-finite-out"), "--precision", "f32"];
    const { message } = await failure(args);
    expect(message).toMatch(
      /tensor \S+ \[[\d,]+\] is NaN; weights must be finite \(--allow-non-finite lets such pass\)/,
    );
    await output([...args, "--allow-non-finite"]);

    // In the cache, what was let pass is not found by those who did not ask for it.
    const scoring = ["score", "--model", dir, "--token-ids", "1,2", "--precision", "f32", ...cache];
    expect((await failure(scoring)).message).toContain("is NaN");
    expect((await failure([...scoring, "--allow-non-finite"])).message).toContain("logits that are not finite");
    expect((await failure(scoring)).message).toContain("is NaN");
  });

  it.each([
    ["score", (dir: string) => ["score", "--model", dir, "--token-ids", "1,2,3,4"], /for token 1 of the prompt/],
    ["eval", (dir: string) => ["eval", "--model", dir, "--text", "README.md"], /for token \d+ of document 1/],
  ])("whose numbers are too large for f16 is reported by %s", async (name, command, where) => {
    const source = name === "score" ? TINY : "models/densemamba-tales-4m";
    const dir = await copyOf(source, `beyond-f16-${name}`);
    const tensors = readRawTensors(dir);
    const scaleTo = (largest: number, name: string) => {
      const { dtype, shape, bytes } = tensors.get(name)!;
      const values = widen(dtype as FloatDtype, Buffer.from(bytes));
      const scale = largest / values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
      tensors.set(name, { dtype: "F32", shape, bytes: new Uint8Array(values.map((x) => x * scale).buffer) });
    };
    // The convolution's inputs are state, kept in f16 from one chunk to the next.
    scaleTo(60_000, "backbone.layers.0.mixer.in_proj.weight");
    writeRawTensors(dir, tensors);
    const args = [...command(dir), "--precision", "f16", "--prefill-chunk", "2", ...cache];
    const result = await failure(args);
    expect(result.exitCode).toBe(1);
    expect(result.message).toMatch(/error: runtime_fault: in f16, whose numbers end at 65504: the model gave /);
    expect(result.message).toMatch(where);
    if (name === "score") expect(await output([...command(dir), "--precision", "f32", ...cache])).not.toContain("NaN");
  });

  it("with a tokenizer that has more ids than the model is refused", async () => {
    const dir = await copyOf(TINY, "misfit");
    for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
      await cp(path.join("models/densemamba-tales-4m", name), path.join(dir, name));
    }
    for (const command of [
      ["generate", "--prompt", "x"],
      ["serve", "--port", "0", "--log-level", "error"],
    ]) {
      const { message } = await failure([...command, "--model", dir, ...cache]);
      expect(message).toMatch(
        /the tokenizer of misfit gives ids up to 4095, but the model's vocabulary ends at \d\d\n$/,
      );
    }
  });
});

describe("serve", () => {
  const args = ["serve", "--port", "0", "--log-level", "warn"];

  it("prints its address, answers, counts, and shuts down cleanly on a signal", async () => {
    const run = runProgram([...args, ...cache]);
    const [, url] = await run.stdout.until(/ready +(http:\S+) after [\d.]+ s/);
    expect(run.stdout.text).toContain(`curl -N ${url}/v1/completions`);

    const headers = { "content-type": "application/json" };
    await fetch(`${url}/v1/sessions`, { method: "POST", headers, body: '{"session_id": "s"}' });
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers,
      body: JSON.stringify({ prompt: "Once upon a time", max_tokens: 9, temperature: 0, session_id: "s" }),
    });
    const completion = (await response.json()) as { choices: { text: string }[]; usage: Record<string, number> };
    expect(response.status, JSON.stringify(completion)).toBe(200);
    expect(completion.choices[0]!.text.length).toBeGreaterThan(0);
    expect(completion.usage.completion_tokens).toBe(9);

    const metrics = await (await fetch(`${url}/metrics`)).text();
    const sample = (name: string) => Number(new RegExp(`^${name}\\{.*\\} (\\S+)$`, "m").exec(metrics)?.[1]);
    expect(sample("densemamba_generation_tokens_total")).toBe(9);
    expect(sample("densemamba_inter_token_latency_seconds_count")).toBe(8);
    expect(sample("densemamba_store_snapshots")).toBe(1);
    expect(sample("densemamba_snapshot_capture_seconds_count")).toBe(1);
    expect(sample("densemamba_slots_in_use")).toBe(0);
    expect(metrics).toMatch(/densemamba_http_requests_total\{method="POST",route="\/v1\/completions",status="200"/);

    run.send("SIGTERM");
    expect(await run.exitCode, run.stderr.text).toBe(0);
    await expect(fetch(url!)).rejects.toThrow();
  });

  it("lets a running stream finish before it closes", async () => {
    const run = runProgram([...args, "--shutdown-ms", "60s", ...cache]);
    const [, url] = await run.stdout.until(/ready +(http:\S+)/);
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "Once", max_tokens: 200, stream: true, ignore_eos: true }),
    });
    run.send("SIGTERM");
    const stream = await response.text();
    expect(stream).toContain('"finish_reason":"length"');
    expect(stream.trimEnd().endsWith("data: [DONE]")).toBe(true);
    expect(await run.exitCode).toBe(0);
  });

  it("says so when the port is in use", async () => {
    const squatter = createServer().listen(0, "127.0.0.1");
    await new Promise((resolve) => squatter.once("listening", resolve));
    const { port } = squatter.address() as AddressInfo;
    const result = await failure(["serve", "--port", String(port), "--log-level", "error", ...cache]);
    expect(result.message).toBe(
      `error: EADDRINUSE: port ${port} on 127.0.0.1 is in use; choose another with --port, or 0 for any free one\n`,
    );
    expect(result.exitCode).toBe(1);
    squatter.close();
  });
});

describe("the program", () => {
  const run = (args: readonly string[]) =>
    new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
      execFile(process.execPath, [PROGRAM, ...args], (error, stdout, stderr) =>
        resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr: asText(stderr) }),
      );
    });

  it("exits with 2 for mistakes on the command line, with 1 for later failures", async () => {
    const [unknown, config, failed, help] = await Promise.all([
      run(["serve", "--prot", "80"]),
      run(["serve", "--port", "x", "--device", "tpu"]),
      run(["inspect", "--model", "test/fixtures"]),
      run(["--help"]),
    ]);
    expect(unknown).toMatchObject({ code: 2, stderr: expect.stringContaining("Did you mean --port?") });
    expect(config).toMatchObject({ code: 2, stderr: expect.stringMatching(/2 problems\n {2}--/) });
    expect(failed).toMatchObject({ code: 1, stderr: expect.stringMatching(/^error: invalid_checkpoint: .*\n$/) });
    expect(help).toMatchObject({ code: 0, stdout: expect.stringContaining("serve") });
  });
});

function logSoftmax(logits: readonly number[]): number[] {
  const largest = Math.max(...logits);
  const sum = largest + Math.log(logits.reduce((total, logit) => total + Math.exp(logit - largest), 0));
  return logits.map((logit) => logit - sum);
}

describe("doctor", () => {
  const examine = (...more: string[]) => runProgram(["doctor", "--json", ...cache, ...more]);

  it("shows what a server would find, and what to do where something is missing, without secrets", async () => {
    const run = examine(
      "--valkey-url",
      "valkey://:secret@127.0.0.1:1",
      "--store-dir",
      path.join(folder, "new", "store"),
    );
    expect(await run.exitCode, run.stderr.text).toBe(0);
    const findings = JSON.parse(run.stdout.text) as { name: string; verdict: string; text: string; advice?: string }[];
    expect(findings.map(({ name }) => name)).toEqual([
      "program",
      "CPU",
      "memory",
      "kernels",
      "CUDA",
      "cache",
      "store",
      "Valkey",
      "hub",
    ]);
    const of = (wanted: string) => findings.find(({ name }) => name === wanted)!;
    expect(of("program").text).toContain(process.version);
    expect(of("store")).toMatchObject({ verdict: "ok", text: expect.stringContaining("to be created") });
    expect(of("Valkey")).toMatchObject({ verdict: "lacking", text: expect.stringContaining("127.0.0.1:1") });
    for (const { verdict, advice } of findings) expect(verdict === "ok" || advice !== undefined).toBe(true);
    expect(run.stdout.text).not.toContain("secret");
  });

  it("without a compiler or a library says how to get kernels", async () => {
    const run = runProgram(["doctor", ...cache, "--kernel-library", "/nowhere.so"]);
    expect(await run.exitCode, run.stderr.text).toBe(0);
    expect(run.stdout.text).toMatch(/lacking +kernels +plain ONNX: cannot read \/nowhere.so\n +→ install a C compiler/);
  });

  it("fails if a server would not start, after it has reported all", async () => {
    await writeFile(path.join(folder, "file"), "");
    const run = examine("--store-dir", path.join(folder, "file"));
    expect(await run.exitCode).toBe(2);
    expect(run.stderr.text).toContain("a server would not start here: store");
    expect(run.stdout.text).toContain('"hub"');
  });
});
