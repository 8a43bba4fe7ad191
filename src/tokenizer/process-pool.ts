/**
 * A few worker processes and the jobs that wait for them. Requests take turns, one job each, so a
 * request with many jobs does not delay one with few. A process that has died, or was killed
 * because its caller left, is replaced when the next job comes.
 */
export interface PooledProcess {
  readonly isAlive: boolean;
  /** @param because the error for the caller that waits for an answer */
  kill(because: Error): void;
}

export interface ProcessPoolOptions<Process, Job, Answer> {
  readonly start: () => Promise<Process>;
  readonly run: (process: Process, job: Job, signal: AbortSignal | undefined) => Promise<Answer>;
  readonly maxProcesses: number;
  /** The error of an aborted job. */
  readonly aborted: () => Error;
  readonly first?: Process;
  /** An idle pool ends its processes after this long. Default: never. */
  readonly idleMs?: number;
}

interface Task<Job, Answer> {
  readonly job: Job;
  readonly signal: AbortSignal | undefined;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

export class ProcessPool<Process extends PooledProcess, Job, Answer> {
  readonly #options: ProcessPoolOptions<Process, Job, Answer>;
  /** By request, whose jobs share one signal; the first request is next. */
  readonly #waiting = new Map<object, Task<Job, Answer>[]>();
  readonly #running = new Set<Task<Job, Answer>>();
  readonly #processes = new Set<Process>();
  readonly #idle: Process[] = [];
  #numWaiting = 0;
  #numBusy = 0;
  #idleTimer: NodeJS.Timeout | undefined;
  #closedBecause: Error | undefined;

  constructor(options: ProcessPoolOptions<Process, Job, Answer>) {
    this.#options = options;
    if (options.first === undefined) return;
    this.#processes.add(options.first);
    this.#idle.push(options.first);
  }

  /** Jobs that no process has taken yet. */
  get numWaiting(): number {
    return this.#numWaiting;
  }

  /**
   * @param signal identifies the request
   * @throws what `aborted` makes, as soon as the signal fires; what `run` throws
   */
  submit(job: Job, signal?: AbortSignal): Promise<Answer> {
    if (this.#closedBecause !== undefined) return Promise.reject(this.#closedBecause);
    if (signal?.aborted) return Promise.reject(this.#options.aborted());
    let leave = () => {};
    const answered = new Promise<Answer>((resolve, reject) => {
      const task = { job, signal, resolve, reject };
      const request = signal ?? task;
      leave = () => {
        this.#take(request, task);
        reject(this.#options.aborted());
      };
      const earlier = this.#waiting.get(request);
      if (earlier) earlier.push(task);
      else this.#waiting.set(request, [task]);
      this.#numWaiting++;
      if (this.#numBusy < this.#options.maxProcesses) void this.#work();
    });
    signal?.addEventListener("abort", leave, { once: true });
    return answered.finally(() => signal?.removeEventListener("abort", leave));
  }

  /** Ends the processes and refuses further jobs; waiting and running ones fail with `because`. */
  close(because: Error): void {
    this.#closedBecause = because;
    clearTimeout(this.#idleTimer);
    const waiting = [...this.#waiting.values()].flat();
    this.#waiting.clear();
    this.#numWaiting = 0;
    for (const { reject } of [...waiting, ...this.#running]) reject(because);
    for (const process of this.#processes) process.kill(because);
  }

  /** One process works through the queue. Never rejects: failures go to the callers. */
  async #work(): Promise<void> {
    this.#numBusy++;
    clearTimeout(this.#idleTimer);
    let process = this.#idle.pop();
    for (let task = this.#next(); task !== undefined; task = this.#next()) {
      const { job, signal, resolve, reject } = task;
      this.#running.add(task);
      try {
        if (!process?.isAlive) process = await this.#replace(process);
        if (signal?.aborted) throw this.#options.aborted();
        resolve(await this.#options.run(process, job, signal));
      } catch (error) {
        reject(error);
      }
      this.#running.delete(task);
    }
    this.#numBusy--;
    if (process?.isAlive) this.#idle.push(process);
    if (this.#numBusy === 0 && this.#options.idleMs !== undefined) {
      this.#idleTimer = setTimeout(() => this.#endIdle(), this.#options.idleMs).unref();
    }
  }

  async #replace(dead: Process | undefined): Promise<Process> {
    if (dead !== undefined) this.#processes.delete(dead);
    const process = await this.#options.start();
    this.#processes.add(process);
    if (this.#closedBecause === undefined) return process;
    process.kill(this.#closedBecause);
    throw this.#closedBecause;
  }

  #endIdle(): void {
    for (const process of this.#idle.splice(0)) {
      this.#processes.delete(process);
      process.kill(new Error("the process is no longer needed"));
    }
  }

  #next(): Task<Job, Answer> | undefined {
    for (const [request, [task]] of this.#waiting) {
      if (task === undefined || !this.#take(request, task)) continue;
      const later = this.#waiting.get(request);
      // Back to the end of the queue.
      this.#waiting.delete(request);
      if (later !== undefined) this.#waiting.set(request, later);
      return task;
    }
    return undefined;
  }

  /** @returns whether the task was still waiting */
  #take(request: object, task: Task<Job, Answer>): boolean {
    const tasks = this.#waiting.get(request);
    const at = tasks?.indexOf(task) ?? -1;
    if (tasks === undefined || at === -1) return false;
    tasks.splice(at, 1);
    if (tasks.length === 0) this.#waiting.delete(request);
    this.#numWaiting--;
    return true;
  }
}
