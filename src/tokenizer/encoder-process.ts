/**
 * A tokenizer's library in a process of its own. Its native code may abort on a text or take minutes over it, and nothing
 * but the end of its process stops it. One text at a time; knows nothing of queues or of how texts are cut.
 */
import { strict as assert } from "node:assert";
import { type ChildProcess, spawn } from "node:child_process";
import { createRequire } from "node:module";
import type { Socket } from "node:net";
import { DenseMambaError } from "../errors.ts";

/** `native`: Rust. `script`: JavaScript, for platforms without a prebuilt binary. Neither adds special tokens here. */
export type EncodingLibrary = "native" | "script";

export interface EncoderSource {
  readonly path: string;
  /** tokenizer.json as it stands. */
  readonly text: string;
  readonly addedTokens: readonly { readonly id: number; readonly content: string }[];
  /** `auto`: the native library where it loads. */
  readonly library: EncodingLibrary | "auto";
}

/** Of what a library that dies has to say, the end. */
const MAX_STDERR_LENGTH = 4096;

/** A script of its own rather than a file: it then runs the same from source and from the built package. */
const SCRIPT = `
let encode;
// A signal to the whole group of processes is the server's to obey: while it drains it may still encode.
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
  // Some files still carry the settings of the training run; they would cut or pad prompts silently.
  tokenizer.disableTruncation();
  tokenizer.disablePadding();
  // It numbers those that the vocabulary lacks itself, whatever the file says.
  for (const { id, content } of addedTokens) {
    const given = tokenizer.tokenToId(content);
    if (content !== "" && given !== id) {
      throw new Error("the added token " + JSON.stringify(content) + " has id " + id + ", where the vocabulary leads to " + given);
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

interface Pending {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

export class EncoderProcess {
  readonly #child: ChildProcess;
  readonly #path: string;
  #library: EncodingLibrary | undefined;
  #isAlive = true;
  #stderr = "";
  #pending: Pending | undefined;
  #killedBecause: string | undefined;

  private constructor(path: string) {
    this.#path = path;
    // Of our environment, which may hold keys, it needs nothing.
    const env = { UV_THREADPOOL_SIZE: "1" };
    const stdio = ["ignore", "ignore", "pipe", "ipc"] as const;
    this.#child = spawn(process.execPath, ["-e", SCRIPT], { stdio: [...stdio], serialization: "advanced", env });
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_STDERR_LENGTH);
    });
    this.#child.on("message", (answer: Answer) => this.#settle((pending) => pending.resolve(answer)));
    this.#child.on("error", (error) => this.#end(error.message));
    // NOTE: `close`, not `exit`: by then all that it said has been read.
    this.#child.on("close", (code, signal) => this.#end(signal ?? `exit code ${code}`));
  }

  /** @throws `invalid_checkpoint` if the library refuses the file, or does not survive it. */
  static async start({ path, text, library, addedTokens }: EncoderSource): Promise<EncoderProcess> {
    const require = createRequire(import.meta.url);
    const modules = { native: require.resolve("tokenizers"), script: require.resolve("@huggingface/tokenizers") };
    const encoder = new EncoderProcess(path);
    const answer = await encoder.#ask({
      ...{ library, modules, text },
      addedTokens: addedTokens.map(({ id, content }) => ({ id, content })),
    });
    if ("error" in answer) {
      encoder.kill("refused");
      throw new DenseMambaError("invalid_checkpoint", `${path} is refused: ${answer.error}`);
    }
    assert("library" in answer);
    encoder.#library = answer.library;
    encoder.#keepAlive(false);
    return encoder;
  }

  get library(): EncodingLibrary {
    return this.#library!;
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  /**
   * @throws `invalid_value` if the tokenizer has no ids for the text; `invalid_checkpoint` if the library dies over it, or
   * is killed
   */
  async encode(text: string): Promise<Int32Array> {
    this.#keepAlive(true);
    try {
      const answer = await this.#ask({ text });
      if ("error" in answer) {
        throw new DenseMambaError("invalid_value", `the tokenizer cannot encode this text: ${answer.error}`);
      }
      assert("ids" in answer);
      return answer.ids;
    } finally {
      this.#keepAlive(false);
    }
  }

  /** @param because what the one who waits for an answer is told */
  kill(because: string): void {
    this.#isAlive = false;
    this.#killedBecause = because;
    this.#child.kill("SIGKILL");
  }

  /** Whether our own process goes on for it: not for an idle one. */
  #keepAlive(isBusy: boolean): void {
    // NOTE: its death is told when its stderr has ended too.
    const stderr = this.#child.stderr as Socket;
    for (const handle of [this.#child, this.#child.channel, stderr]) {
      if (isBusy) handle?.ref();
      else handle?.unref();
    }
  }

  #ask(message: object): Promise<Answer> {
    assert(this.#isAlive && this.#pending === undefined, "one text at a time");
    return new Promise<Answer>((resolve, reject) => {
      this.#pending = { resolve, reject };
      // A failure to send is told by `close`.
      this.#child.send(message, () => undefined);
    });
  }

  #settle(how: (pending: Pending) => void): void {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending) how(pending);
  }

  #end(how: string): void {
    this.#isAlive = false;
    const said = /panicked at[^\n]*\n[^\n]*|[^\n]*rror: [^\n]*/.exec(this.#stderr)?.[0].replaceAll("\n", " ");
    const why = this.#killedBecause ?? `the library ended with ${how}${said === undefined ? "" : ` (${said})`}`;
    this.#settle(({ reject }) => reject(new DenseMambaError("invalid_checkpoint", `${this.#path}: ${why}`)));
  }
}
