/**
 * A tokenizer's library in a process of its own: its native code may crash on a text or take
 * minutes. One text at a time; knows neither queues nor how texts are cut.
 */
import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { DenseMambaError } from "../errors.ts";
import { START_TIMEOUT_MS, WorkerProcess } from "./worker-process.ts";

/**
 * `native`: Rust. `script`: JavaScript, for platforms without a prebuilt binary. Used without
 * special tokens.
 */
export type EncodingLibrary = "native" | "script";

export interface EncoderSource {
  readonly path: string;
  /** The contents of tokenizer.json. */
  readonly text: string;
  readonly addedTokens: readonly { readonly id: number; readonly content: string }[];
  /** `auto`: the native library if it loads. */
  readonly library: EncodingLibrary | "auto";
  readonly startTimeoutMs?: number;
}

/** A string and not a file, so that it runs the same from source and from the built package. */
const SCRIPT = `
let encode;
// A signal to the whole process group is for the server, which may still encode while it drains.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});
// Native code cannot be interrupted otherwise.
process.on("disconnect", () => process.kill(process.pid, "SIGKILL"));
process.on("message", async (message) => {
  try {
    if (encode) process.send({ ids: Int32Array.from(await encode(message.text)) });
    else process.send({ library: open(message) });
  } catch (error) {
    process.send({ error: String((error && error.message) || error) });
  }
});

function open({ library, modules, text, addedTokens }) {
  const native = library === "script" ? undefined : loadNative(modules.native, library === "native");
  if (native === undefined) {
    const { Tokenizer } = require(modules.script);
    const tokenizer = new Tokenizer(JSON.parse(text), {});
    encode = (given) => tokenizer.encode(given, { add_special_tokens: false }).ids;
    return "script";
  }
  const tokenizer = native.Tokenizer.fromString(text);
  // Some files still carry the settings of the training run; they would cut or pad prompts
  // silently.
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  // The library numbers added tokens that the vocabulary lacks itself, whatever the file says.
  for (const { id, content } of addedTokens) {
    const given = tokenizer.tokenToId(content);
    if (content !== "" && given !== id) {
      throw new Error("the added token " + JSON.stringify(content) + " has id " + id + ", but the vocabulary gives it " + given);
    }
  }
  encode = async (given) => (await tokenizer.encode(given, null, { addSpecialTokens: false })).getIds();
  return "native";
}

function loadNative(module, isRequired) {
  try {
    return require(module);
  } catch (error) {
    if (isRequired) throw error;
  }
}`;

type Answer = { readonly library: EncodingLibrary } | { readonly ids: Int32Array } | { readonly error: string };

export class EncoderProcess {
  readonly library: EncodingLibrary;
  readonly #process: WorkerProcess<Answer>;
  readonly #path: string;

  private constructor(process: WorkerProcess<Answer>, path: string, library: EncodingLibrary) {
    this.#process = process;
    this.#path = path;
    this.library = library;
  }

  /**
   * @throws `invalid_checkpoint` if the library refuses the file or crashes on it; `not_ready` if
   * it takes too long
   */
  static async start(source: EncoderSource): Promise<EncoderProcess> {
    const { path, text, library, addedTokens, startTimeoutMs: timeoutMs = START_TIMEOUT_MS } = source;
    const require = createRequire(import.meta.url);
    const modules = { native: require.resolve("tokenizers"), script: require.resolve("@huggingface/tokenizers") };
    // It gets no environment variables, which may contain keys.
    const env = { UV_THREADPOOL_SIZE: "1" };
    const child = spawn(process.execPath, ["-e", SCRIPT], {
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      serialization: "advanced",
      env,
    });
    const worker = new WorkerProcess<Answer>(child, (how, stderr) => {
      const cause = /panicked at[^\n]*\n[^\n]*|[^\n]*rror: [^\n]*/.exec(stderr)?.[0].replaceAll("\n", " ");
      return invalid(path, `the library ended with ${how}${cause === undefined ? "" : ` (${cause})`}`);
    });
    const message = {
      ...{ library, modules, text },
      addedTokens: addedTokens.map(({ id, content }) => ({ id, content })),
    };
    const answer = await worker.ask(message, {
      timeoutMs,
      late: () => new DenseMambaError("not_ready", `the tokenizer of ${path} was not loaded within ${timeoutMs} ms`),
    });
    if ("error" in answer) {
      const refusal = new DenseMambaError("invalid_checkpoint", `${path} is refused: ${answer.error}`);
      worker.kill(refusal);
      throw refusal;
    }
    assert("library" in answer);
    return new EncoderProcess(worker, path, answer.library);
  }

  get isAlive(): boolean {
    return this.#process.isAlive;
  }

  /**
   * @throws `invalid_value` if the tokenizer has no ids for the text; `invalid_checkpoint` if the
   * library crashes on it, takes too long or is killed
   */
  async encode(text: string, timeoutMs: number): Promise<Int32Array> {
    const what = `encoding a text of ${text.length} characters took longer than ${timeoutMs} ms`;
    const answer = await this.#process.ask({ text }, { timeoutMs, late: () => invalid(this.#path, what) });
    if ("error" in answer) {
      throw new DenseMambaError("invalid_value", `the tokenizer cannot encode this text: ${answer.error}`);
    }
    assert("ids" in answer);
    return answer.ids;
  }

  /** @param because the error for the caller that waits for ids */
  kill(because: Error): void {
    this.#process.kill(because);
  }
}

function invalid(path: string, why: string): DenseMambaError {
  return new DenseMambaError("invalid_checkpoint", `${path}: ${why}`);
}
