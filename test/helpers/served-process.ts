/**
 * `densemamba serve` as its user runs it: a process of its own that can be signalled and killed. In
 * f32 on ONNX Runtime's own operators, whose results do not depend on what runs beside them.
 */
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { cp, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { ensureArtifact } from "../../src/compiler/artifact-cache.ts";
import { PROGRAM } from "./program.ts";
import { DEFAULT_MODEL_DIR } from "./real-server.ts";
import { SHARED_ARTIFACTS } from "./shared-artifacts.ts";

/**
 * A compiled default model, once for all processes of a test file, and a place for what they keep.
 */
export class ServingFolder {
  readonly dir: string;

  private constructor(dir: string) {
    this.dir = dir;
  }

  static async make(): Promise<ServingFolder> {
    const dir = await mkdtemp(path.join(tmpdir(), "densemamba-served-"));
    const options = { modelDir: DEFAULT_MODEL_DIR, precision: "f32", cacheDir: SHARED_ARTIFACTS } as const;
    const artifact = await ensureArtifact(options);
    await cp(artifact.dir, path.join(dir, "cache", path.basename(artifact.dir)), { recursive: true });
    return new ServingFolder(dir);
  }

  /** @param execPath in Node's place */
  async serve(
    args: readonly string[],
    execPath = process.execPath,
    options: ProcessOptions = {},
  ): Promise<ServedProcess> {
    const numerics = ["--device", "cpu", "--precision", "f32", "--kernels", "off", "--threads", "1"];
    const all = ["serve", "--port", "0", ...numerics, "--cache-dir", path.join(this.dir, "cache"), ...args];
    return ServedProcess.start(execPath, all, options);
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** By default this process's own. */
export type ProcessOptions = Pick<SpawnOptions, "env" | "uid" | "gid" | "cwd">;

export class ServedProcess {
  /** What it has said so far. */
  stdout = "";
  stderr = "";
  url = "";
  readonly #child: ChildProcess;
  /** Its exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.ended = once(child, "exit").then(([code, signal]) => code ?? signal);
    child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.stdout += text;
    });
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.stderr += text;
    });
  }

  static async start(execPath: string, args: readonly string[], options: ProcessOptions = {}): Promise<ServedProcess> {
    const server = new ServedProcess(
      spawn(execPath, [PROGRAM, ...args], { ...options, stdio: ["ignore", "pipe", "pipe"] }),
    );
    server.url = await server.#address();
    return server;
  }

  get webSocketUrl(): string {
    return `${this.url.replace("http", "ws")}/v1/responses`;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** In good order. @returns the exit code */
  async stop(): Promise<number | string> {
    this.kill("SIGTERM");
    return this.ended;
  }

  /** POSTs JSON. */
  post(route: string, body: object, signal?: AbortSignal): Promise<Response> {
    return fetch(this.url + route, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      ...(signal && { signal }),
    });
  }

  /** The last sample whose name and labels match. */
  async metric(name: string, label = ""): Promise<number> {
    const text = await (await fetch(`${this.url}/metrics`)).text();
    const lines = text.split("\n").filter((line) => line.startsWith(`${name}{`) && line.includes(label));
    return Number(lines.at(-1)?.split(" ").at(-1));
  }

  async #address(): Promise<string> {
    let isGone = false;
    void this.ended.then(() => {
      isGone = true;
    });
    for (;;) {
      const found = /ready +(http:\S+) after/.exec(this.stdout);
      if (found !== null) return found[1]!;
      if (isGone) throw new Error(`the server ended with ${await this.ended} before it was ready: ${this.stderr}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

/** A completion, with the ids of its tokens. */
export interface Completed {
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly promptTokens: number;
  readonly cachedTokens: number;
}

/** @throws for another status than 200 */
export async function complete(server: Pick<ServedProcess, "post">, body: object): Promise<Completed> {
  const response = await server.post("/v1/completions", { return_token_ids: true, ...body });
  const answer = (await response.json()) as {
    choices: { text: string; token_ids: number[] }[];
    usage: { prompt_tokens: number; prompt_tokens_details: { cached_tokens: number } };
  };
  if (response.status !== 200) throw new Error(`${response.status}: ${JSON.stringify(answer)}`);
  const { text, token_ids: tokenIds } = answer.choices[0]!;
  const { prompt_tokens: promptTokens, prompt_tokens_details: details } = answer.usage;
  return { text, tokenIds, promptTokens, cachedTokens: details.cached_tokens };
}

/** Of a streamed completion: what came until the stream ended. */
export interface Streamed {
  readonly tokenIds: number[];
  /** The `error` of the last chunk, if it is one. */
  error: { code: string; message: string } | undefined;
}

/** @param onTokens called with all that has come, each time more comes */
export async function readStream(response: Response, onTokens: (tokenIds: readonly number[]) => void) {
  const streamed: Streamed = { tokenIds: [], error: undefined };
  let rest = "";
  for await (const bytes of response.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + bytes).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (!line.startsWith("data: {")) continue;
      const chunk = JSON.parse(line.slice(6));
      streamed.error = chunk.error;
      streamed.tokenIds.push(...(chunk.choices?.[0]?.token_ids ?? []));
    }
    onTokens(streamed.tokenIds);
  }
  return streamed;
}
