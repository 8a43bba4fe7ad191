/**
 * A child process that answers one message at a time, within a time limit. Only the end of a
 * process stops native code and frees its memory. While idle it does not keep the server's process
 * alive.
 */
import { strict as assert } from "node:assert";
import type { ChildProcess } from "node:child_process";
import type { Socket } from "node:net";

/** For the start, which takes a second, or several on a busy machine. */
export const START_TIMEOUT_MS = 60_000;
/** The end of what a process wrote to stderr before it died. */
const MAX_STDERR_LENGTH = 4096;

export interface AskOptions {
  /** The process is killed if there is no answer in this time. */
  readonly timeoutMs: number;
  /** The error in that case. */
  readonly late: () => Error;
}

interface Pending<Answer> {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

export class WorkerProcess<Answer> {
  readonly #child: ChildProcess;
  readonly #explainEnd: (how: string, stderr: string) => Error;
  #isAlive = true;
  #stderr = "";
  #pending: Pending<Answer> | undefined;
  #killedBecause: Error | undefined;

  /**
   * @param child has an IPC channel and ends when that closes; a pipe for stderr is optional
   * @param explainEnd makes the error for a process that ended by itself, from how it ended and its
   * stderr
   */
  constructor(child: ChildProcess, explainEnd: (how: string, stderr: string) => Error) {
    this.#child = child;
    this.#explainEnd = explainEnd;
    child.on("message", (answer) => this.#settle(({ resolve }) => resolve(answer as Answer)));
    child.on("error", (error) => this.#end(error.message));
    // Without its channel it cannot answer, though it may still run.
    child.on("disconnect", () => child.kill("SIGKILL"));
    // NOTE: `close`, not `exit`: by then its last messages and its stderr have been read.
    child.on("close", (code, signal) => this.#end(signal ?? `exit code ${code}`));
    // A process that could not start, as for lack of file descriptors, has no stderr.
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-MAX_STDERR_LENGTH);
    });
  }

  get isAlive(): boolean {
    return this.#isAlive;
  }

  /** One message at a time. @throws the reason it was killed for, or how it ended */
  async ask(message: object, { timeoutMs, late }: AskOptions): Promise<Answer> {
    assert(this.#pending === undefined, "one message at a time");
    this.#keepAlive(true);
    const timer = setTimeout(() => this.kill(late()), timeoutMs);
    try {
      return await new Promise<Answer>((resolve, reject) => {
        this.#pending = { resolve, reject };
        // If it cannot be sent, `error` or `close` follows.
        if (this.#isAlive) this.#child.send?.(message, (error) => error && this.#child.kill("SIGKILL"));
        else this.#end("an earlier failure");
      });
    } finally {
      clearTimeout(timer);
      this.#pending = undefined;
      this.#keepAlive(false);
    }
  }

  /** @param because the error for the caller that waits for an answer */
  kill(because: Error): void {
    this.#isAlive = false;
    this.#killedBecause ??= because;
    this.#child.kill("SIGKILL");
  }

  /** Whether it keeps our own process alive. */
  #keepAlive(isBusy: boolean): void {
    for (const handle of [this.#child, this.#child.channel, this.#child.stderr as Socket | null]) {
      if (isBusy) handle?.ref();
      else handle?.unref();
    }
  }

  #settle(how: (pending: Pending<Answer>) => void): void {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending) how(pending);
  }

  #end(how: string): void {
    this.#isAlive = false;
    this.#settle(({ reject }) => reject(this.#killedBecause ?? this.#explainEnd(how, this.#stderr)));
  }
}
