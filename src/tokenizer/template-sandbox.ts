/**
 * Renders chat templates that a request brought along. Such a template may loop for ever or build a huge list, so it
 * runs in a worker thread with limits on time and memory, a few at a time. The model's own template needs none of this.
 */
import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { DenseMambaError } from "../errors.ts";

export const MAX_TEMPLATE_LENGTH = 64 * 1024;
const TIMEOUT_MS = 1000;
const MAX_HEAP_MB = 32;
/** Each costs a core while it runs. */
const MAX_RUNNING = 2;
const MAX_RENDERED_LENGTH = 4 * 1024 * 1024;

/** A script of its own rather than a file: it then runs the same from source and from the built package. */
const WORKER = `
const { parentPort, workerData } = require("node:worker_threads");
const { Template } = require(workerData.library);
try {
  const text = new Template(workerData.template).render(workerData.variables);
  if (text.length > workerData.maxLength) throw new Error("it renders " + text.length + " characters; at most " + workerData.maxLength + " are allowed");
  parentPort.postMessage({ text });
} catch (error) {
  parentPort.postMessage({ error: String(error && error.message || error) });
}`;

export class TemplateSandbox {
  #numRunning = 0;
  readonly #waiting: (() => void)[] = [];
  readonly #timeoutMs: number;

  constructor({ timeoutMs = TIMEOUT_MS }: { readonly timeoutMs?: number } = {}) {
    this.#timeoutMs = timeoutMs;
  }

  /** @throws `invalid_value` if the template is too long, malformed, fails, or exceeds its limits. */
  async render(template: string, variables: Readonly<Record<string, unknown>>): Promise<string> {
    if (template.length > MAX_TEMPLATE_LENGTH) {
      throw invalidTemplate(`has ${template.length} characters; at most ${MAX_TEMPLATE_LENGTH} are allowed`);
    }
    await this.#enter();
    try {
      return await this.#run(template, variables);
    } finally {
      this.#leave();
    }
  }

  #run(template: string, variables: Readonly<Record<string, unknown>>): Promise<string> {
    const library = createRequire(import.meta.url).resolve("@huggingface/jinja");
    const worker = new Worker(WORKER, {
      eval: true,
      workerData: { library, template, variables, maxLength: MAX_RENDERED_LENGTH },
      resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
      env: {},
      execArgv: [],
      // What it might print is not for our output.
      stdout: true,
      stderr: true,
    });
    return new Promise<string>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(invalidTemplate(`took longer than ${this.#timeoutMs} ms to render`)),
        this.#timeoutMs,
      );
      worker.once("message", (message: { text: string } | { error: string }) => {
        if ("text" in message) resolve(message.text);
        else reject(invalidTemplate(`failed: ${message.error}`));
      });
      worker.once("error", (error) => reject(invalidTemplate(`failed: ${error.message}`)));
      worker.once("exit", () => {
        clearTimeout(timer);
        reject(invalidTemplate("ended without a result"));
      });
    }).finally(() => worker.terminate());
  }

  async #enter(): Promise<void> {
    if (this.#numRunning < MAX_RUNNING) this.#numRunning++;
    // The one who leaves hands the place over, so the count stays.
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next) next();
    else this.#numRunning--;
  }
}

function invalidTemplate(what: string): DenseMambaError {
  return new DenseMambaError("invalid_value", `chat_template ${what}`, { param: "chat_template" });
}
