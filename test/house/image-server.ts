/** The server in the file tree of an image, started and stopped as a container engine would. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";
import { type BuiltStage, type Stage, withinRoot } from "./dockerfile.ts";

export interface Exit {
  readonly code: number | null;
  /** Both streams. */
  readonly output: string;
  readonly seconds: number;
}

export class ImageServer {
  readonly #child: ChildProcess;
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #healthCheck: readonly string[];
  readonly #exited: Promise<Exit>;
  #output = "";

  constructor(stage: Stage, image: BuiltStage, env: Readonly<Record<string, string>> = {}) {
    const textOf = (keyword: string) => stage.instructions.findLast((line) => line.keyword === keyword)!.text;
    const inRoot = (text: string) => withinRoot(text, image.root);
    this.#env = {
      PATH: `${path.join(image.root, "usr/local/bin")}:${process.env.PATH}`,
      ...Object.fromEntries(Object.entries(image.env).map(([key, value]) => [key, inRoot(value)])),
      ...{ DENSEMAMBA_HOST: "127.0.0.1", DENSEMAMBA_PORT: "0", ...env },
    };
    this.#healthCheck = JSON.parse(textOf("HEALTHCHECK").replace(/^.*CMD /, ""));
    const [command, ...args] = (JSON.parse(textOf("ENTRYPOINT")) as string[]).map(inRoot);
    const startedMs = performance.now();
    this.#child = spawn(command!, args, { cwd: path.join(image.root, image.workdir), env: this.#env });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.on("data", (chunk: Buffer) => {
        this.#output += chunk.toString();
        this.#child.emit("output");
      });
    }
    this.#exited = new Promise((resolve) => {
      this.#child.once("close", (code) => {
        resolve({ code, output: this.#output, seconds: (performance.now() - startedMs) / 1000 });
      });
    });
  }

  get output(): string {
    return this.#output;
  }

  get exited(): Promise<Exit> {
    return this.#exited;
  }

  /** @returns the address it listens on. @throws what it wrote, if it ends before. */
  async ready(): Promise<string> {
    const listening = new Promise<string>((resolve) => {
      this.#child.on("output", () => {
        const match = /ready +(http:\/\/127\.0\.0\.1:\d+)/.exec(this.#output);
        if (match !== null) resolve(match[1]!);
      });
    });
    const ended = this.#exited.then(({ code, output }) => {
      throw new Error(`exit ${code}: ${output}`);
    });
    return Promise.race([listening, ended]);
  }

  /** As the image's own check does. @throws if it is not healthy. */
  async checkHealth(url: string): Promise<void> {
    const [node, ...args] = this.#healthCheck;
    await promisify(execFile)(node!, args, { env: { ...this.#env, DENSEMAMBA_PORT: new URL(url).port } });
  }

  async stop(): Promise<Exit> {
    this.#child.kill("SIGTERM");
    return this.#exited;
  }

  /** Whatever state it is in. */
  kill(): void {
    this.#child.kill("SIGKILL");
  }
}
