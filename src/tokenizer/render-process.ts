/**
 * Renders chat templates in a process of its own, one at a time: a slow one does not block the
 * event loop, and one that runs out of memory ends only that process. Started at first use and
 * again after a crash; ends with the server.
 */
import { fork } from "node:child_process";
import { DenseMambaError } from "../errors.ts";
import { tookTooLong } from "./chat-program.ts";
import { ProcessPool } from "./process-pool.ts";
import type { RenderJob, RenderReply } from "./render-main.ts";
import { START_TIMEOUT_MS, WorkerProcess } from "./worker-process.ts";

const MAX_HEAP_MB = 96;
/** Jobs wait for all earlier ones. */
const MAX_WAITING = 64;
/**
 * The process stops a job itself when its time is over. It is killed if that takes longer than
 * this.
 */
const KILL_GRACE_MS = 1000;
/** Answered once the process listens. */
const EMPTY_JOB: RenderJob = { source: "", variables: { messages: [] }, nowMs: 0, timeoutMs: 1000, maxLength: 0 };

/** Why rendering failed. The caller adds which template it was. */
export class RenderFailure extends Error {}

export class RenderProcess {
  readonly #startTimeoutMs: number;
  readonly #pool = new ProcessPool<WorkerProcess<RenderReply>, RenderJob, string>({
    start: () => this.#start(),
    run,
    aborted,
    maxProcesses: 1,
  });

  constructor(startTimeoutMs = START_TIMEOUT_MS) {
    this.#startTimeoutMs = startTimeoutMs;
  }

  /**
   * @throws RenderFailure; `queue_full` if too many wait; `shutting_down` after `close`; `aborted`
   * when the signal fires: a running job is ended with its process
   */
  async render(job: RenderJob, signal?: AbortSignal): Promise<string> {
    if (this.#pool.numWaiting >= MAX_WAITING) {
      const message = `${MAX_WAITING} chat templates are waiting to be rendered; no more may wait`;
      throw new DenseMambaError("queue_full", message, { retryAfterMs: job.timeoutMs });
    }
    return this.#pool.submit(job, signal);
  }

  /** Ends the process. All jobs fail with `shutting_down`. */
  close(): void {
    this.#pool.close(new DenseMambaError("shutting_down", "the server is shutting down"));
  }

  /** Resolves when it listens, so that its start does not count as a job's time. */
  async #start(): Promise<WorkerProcess<RenderReply>> {
    const isSource = import.meta.url.endsWith(".ts");
    const child = fork(new URL(isSource ? "./render-main.ts" : "./render-main.js", import.meta.url), {
      serialization: "advanced",
      execArgv: [`--max-old-space-size=${MAX_HEAP_MB}`, ...(isSource ? ["--import", import.meta.resolve("tsx")] : [])],
      // No environment variables except the time zone.
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
    return worker;
  }
}

async function run(worker: WorkerProcess<RenderReply>, job: RenderJob, signal: AbortSignal | undefined) {
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

function aborted(): DenseMambaError {
  return new DenseMambaError("aborted", "the request was aborted before its chat template was rendered");
}
