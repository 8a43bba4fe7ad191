/**
 * Renders chat templates in a process of its own, one at a time: a slow one does not block our event loop, and one that runs
 * out of memory ends only that process. Started at the first use and after it has died; ends with our process.
 */
import { fork } from "node:child_process";
import { DenseMambaError } from "../errors.ts";
import { tookTooLong } from "./chat-program.ts";
import type { RenderJob, RenderReply } from "./render-main.ts";
import { START_TIMEOUT_MS, WorkerProcess } from "./worker-process.ts";

const MAX_HEAP_MB = 96;
/** Jobs wait for all earlier ones. */
const MAX_WAITING = 64;
/** The process stops a job by itself when its time is over. It is killed if it has not done so after this grace. */
const KILL_GRACE_MS = 1000;
/** Answered as soon as the process listens. */
const EMPTY_JOB: RenderJob = { source: "", variables: { messages: [] }, nowMs: 0, timeoutMs: 1000, maxLength: 0 };

/** Why rendering failed. The caller adds whose template it was. */
export class RenderFailure extends Error {}

interface Task {
  readonly job: RenderJob;
  readonly signal: AbortSignal | undefined;
  resolve(text: string): void;
  reject(error: Error): void;
}

export class RenderProcess {
  readonly #waiting: Task[] = [];
  #running: Task | undefined;
  readonly #startTimeoutMs: number;
  #process: WorkerProcess<RenderReply> | undefined;
  #isClosed = false;

  constructor(startTimeoutMs = START_TIMEOUT_MS) {
    this.#startTimeoutMs = startTimeoutMs;
  }

  /**
   * @throws RenderFailure; `queue_full` if too many wait; `shutting_down` once it is closed; `aborted` when the signal says
   * so, for which the process is ended if need be
   */
  render(job: RenderJob, signal?: AbortSignal): Promise<string> {
    if (this.#isClosed) return Promise.reject(closed());
    if (signal?.aborted) return Promise.reject(aborted());
    if (this.#waiting.length >= MAX_WAITING) {
      const message = `${MAX_WAITING} chat templates are waiting to be rendered; no more may wait`;
      return Promise.reject(new DenseMambaError("queue_full", message, { retryAfterMs: job.timeoutMs }));
    }
    let leave = () => {};
    const rendered = new Promise<string>((resolve, reject) => {
      const task = { job, signal, resolve, reject };
      this.#waiting.push(task);
      leave = () => {
        const at = this.#waiting.indexOf(task);
        if (at === -1) return;
        this.#waiting.splice(at, 1);
        reject(aborted());
      };
      this.#next();
    });
    signal?.addEventListener("abort", leave, { once: true });
    return rendered.finally(() => signal?.removeEventListener("abort", leave));
  }

  /** Ends the process. All jobs fail with `shutting_down`. */
  close(): void {
    this.#isClosed = true;
    for (const task of this.#waiting.splice(0)) task.reject(closed());
    this.#running?.reject(closed());
    this.#running = undefined;
    this.#process?.kill(closed());
  }

  #next(): void {
    if (this.#running !== undefined || this.#waiting.length === 0) return;
    this.#running = this.#waiting.shift()!;
    void this.#run(this.#running).finally(() => {
      this.#running = undefined;
      this.#next();
    });
  }

  async #run({ job, signal, resolve, reject }: Task): Promise<void> {
    try {
      if (!this.#process?.isAlive) this.#process = await this.#start();
      if (signal?.aborted) throw aborted();
      resolve(await this.#ask(this.#process, job, signal));
    } catch (error) {
      reject(error as Error);
    }
  }

  async #ask(worker: WorkerProcess<RenderReply>, job: RenderJob, signal: AbortSignal | undefined): Promise<string> {
    const onAbort = () => worker.kill(aborted());
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const reply = await worker.ask(job, {
        timeoutMs: job.timeoutMs + KILL_GRACE_MS,
        late: () => new RenderFailure(tookTooLong(job.timeoutMs)),
      });
      if ("error" in reply) throw new RenderFailure(reply.error);
      return reply.text;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /** Resolves when it listens, so that its start is not counted as anyone's time. */
  async #start(): Promise<WorkerProcess<RenderReply>> {
    const isSource = import.meta.url.endsWith(".ts");
    const child = fork(new URL(isSource ? "./render-main.ts" : "./render-main.js", import.meta.url), {
      serialization: "advanced",
      execArgv: [`--max-old-space-size=${MAX_HEAP_MB}`, ...(isSource ? ["--import", import.meta.resolve("tsx")] : [])],
      // Nothing of our environment but the time zone.
      env: { TZ: Intl.DateTimeFormat().resolvedOptions().timeZone },
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    let hasStarted = false;
    const worker = new WorkerProcess<RenderReply>(child, (how) => {
      return new RenderFailure(
        hasStarted ? "it takes more memory than is allowed" : `its process did not start: ${how}`,
      );
    });
    await worker.ask(EMPTY_JOB, {
      timeoutMs: this.#startTimeoutMs,
      late: () => new RenderFailure(`its process was not ready within ${this.#startTimeoutMs} ms`),
    });
    hasStarted = true;
    if (this.#isClosed) {
      worker.kill(closed());
      throw closed();
    }
    return worker;
  }
}

function aborted(): DenseMambaError {
  return new DenseMambaError("aborted", "the request was aborted before its chat template was rendered");
}

function closed(): DenseMambaError {
  return new DenseMambaError("shutting_down", "the server is shutting down");
}
