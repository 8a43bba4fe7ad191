/**
 * The server under the soak: one process after another on the same folder of states, ended in order or killed, and what its
 * metrics say of slots and memory.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ServerProcess } from "../server-process.ts";
import { ask } from "./soak-http.ts";

const SETTLE_MS = 10_000;
const POLL_MS = 100;

export class SoakServer {
  readonly #args: readonly string[];
  #process: ServerProcess | undefined;
  /** Resolves when there is one that answers. */
  #starting: Promise<ServerProcess>;
  #life = 0;
  #isEnding = false;
  /** The lives that were cut short without warning. */
  readonly #killed = new Set<number>();

  constructor(args: readonly string[]) {
    this.#args = args;
    this.#starting = this.#start();
  }

  /** How many processes there have been before this one. */
  get life(): number {
    return this.#life;
  }

  /** Whether whoever asked in that life may have been cut off: it is over, or about to be. */
  mayHaveEnded(life: number): boolean {
    return this.#isEnding || life !== this.#life;
  }

  wasKilled(life: number): boolean {
    return this.#killed.has(life);
  }

  /** Where it answers, once it does. */
  async url(): Promise<string> {
    return (await this.#starting).baseUrl;
  }

  /** @returns the exit code of the old process; null if it was killed */
  async restart(signal: "SIGTERM" | "SIGKILL"): Promise<number | null> {
    const exitCode = await this.stop(signal);
    this.#starting = this.#start();
    await this.#starting;
    return exitCode;
  }

  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<number | null> {
    this.#isEnding = true;
    if (signal === "SIGKILL") this.#killed.add(this.#life);
    const old = await this.#starting;
    return old.stop(signal);
  }

  /** Sum of a metric over its labels. */
  async metric(name: string): Promise<number> {
    const { body } = await ask("GET", `${await this.url()}/metrics`);
    return sumOf(body.toString(), name);
  }

  /** @returns what is still in use when nobody asks anything any more and some time has passed; empty if nothing is */
  async leftInUse(): Promise<string> {
    const names = ["slots_in_use", "num_requests_running", "num_requests_waiting"];
    for (let waitedMs = 0; ; waitedMs += POLL_MS) {
      const values = await Promise.all(names.map((name) => this.metric(`densemamba_${name}`)));
      if (values.every((value) => value === 0)) return "";
      if (waitedMs >= SETTLE_MS) return names.map((name, i) => `${name} ${values[i]}`).join(", ");
      await sleep(POLL_MS);
    }
  }

  async #start(): Promise<ServerProcess> {
    this.#process = await ServerProcess.startOwn(this.#args);
    this.#life++;
    this.#isEnding = false;
    return this.#process;
  }
}

/** Over all samples of this name in Prometheus' text format; NaN if there is none. */
export function sumOf(text: string, name: string): number {
  const values = text
    .split("\n")
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
    .map((line) => Number(line.slice(line.lastIndexOf(" ") + 1)));
  return values.length === 0 ? Number.NaN : values.reduce((sum, value) => sum + value, 0);
}
