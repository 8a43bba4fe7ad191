/**
 * The server under test: one process after another on the same stored states, stopped in order or
 * killed; and its metrics.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ServedProcess } from "../helpers/served-process.ts";
import { ask } from "./http.ts";

const RELEASE_MS = 10_000;
const POLL_MS = 100;

export class SoakServer {
  readonly #args: readonly string[];
  /** The current process, when it is ready. */
  #starting: Promise<ServedProcess>;
  #life = 0;
  #isEnding = false;
  /** Lives that ended without warning. */
  readonly #killed = new Set<number>();

  constructor(args: readonly string[]) {
    this.#args = args;
    this.#starting = this.#start();
  }

  /** How many processes there have been. */
  get life(): number {
    return this.#life;
  }

  /** Whether a request made in that life may have been cut off: it is over, or ending. */
  mayHaveEnded(life: number): boolean {
    return this.#isEnding || life !== this.#life;
  }

  wasKilled(life: number): boolean {
    return this.#killed.has(life);
  }

  /** Waits until it answers. */
  async url(): Promise<string> {
    return (await this.#starting).url;
  }

  /** @returns the old process's exit code, or the signal that ended it */
  async restart(signal: "SIGTERM" | "SIGKILL"): Promise<number | string> {
    const end = await this.stop(signal);
    this.#starting = this.#start();
    await this.#starting;
    return end;
  }

  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<number | string> {
    this.#isEnding = true;
    if (signal === "SIGKILL") this.#killed.add(this.#life);
    const old = await this.#starting;
    old.kill(signal);
    return old.ended;
  }

  /** Sum of a metric over its labels. */
  async metric(name: string): Promise<number> {
    const { body } = await ask("GET", `${await this.url()}/metrics`);
    return sumOf(body.toString(), name);
  }

  /**
   * @returns what is still in use when nobody has asked anything for some time; empty if nothing is
   */
  async leftInUse(): Promise<string> {
    const names = ["slots_in_use", "num_requests_running", "num_requests_waiting"];
    for (let waitedMs = 0; ; waitedMs += POLL_MS) {
      const values = await Promise.all(names.map((name) => this.metric(`densemamba_${name}`)));
      if (values.every((value) => value === 0)) return "";
      if (waitedMs >= RELEASE_MS) return names.map((name, i) => `${name} ${values[i]}`).join(", ");
      await sleep(POLL_MS);
    }
  }

  async #start(): Promise<ServedProcess> {
    const served = await ServedProcess.start(process.execPath, ["serve", "--port", "0", ...this.#args]);
    this.#life++;
    this.#isEnding = false;
    return served;
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
