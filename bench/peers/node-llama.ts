/** node-llama-cpp, in a process of its own that keeps the model loaded between its turns. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { NodeLlamaAnswer, NodeLlamaTask } from "./node-llama-worker.ts";

const WARM_UP_TOKENS = 32;

export class NodeLlama {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** @throws Error if it cannot load the model */
  static async open(modulePath: string, ggufPath: string, threads: number): Promise<NodeLlama> {
    const worker = fileURLToPath(new URL("./node-llama-worker.ts", import.meta.url));
    const child = fork(worker, [modulePath, ggufPath, `${threads}`], { stdio: ["ignore", "ignore", "inherit", "ipc"] });
    await nextAnswer(child);
    const opened = new NodeLlama(child);
    // The first generation in a process is many times slower than the others.
    await opened.measure({ kind: "tg", numTokens: WARM_UP_TOKENS });
    return opened;
  }

  /** Tokens per second. Tasks must not overlap. */
  async measure(task: NodeLlamaTask): Promise<number> {
    const answer = nextAnswer(this.#child);
    this.#child.send(task);
    return answer;
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL"); // nothing to save, and its own shutdown takes seconds
    await exited;
  }
}

function nextAnswer(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    const settle = (act: () => void) => {
      child.off("message", onMessage);
      child.off("exit", onExit);
      act();
    };
    const onMessage = (answer: NodeLlamaAnswer) =>
      settle(() => ("rate" in answer ? resolve(answer.rate) : reject(new Error(`node-llama-cpp: ${answer.error}`))));
    const onExit = (code: number | null) => settle(() => reject(new Error(`node-llama-cpp exited with ${code}`)));
    child.on("message", onMessage);
    child.on("exit", onExit);
  });
}
