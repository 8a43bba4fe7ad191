/** `densemamba generate`: one completion, streamed to the terminal. */
import { checkVocabulary, createGenerator, requireTokenizer, withEngine } from "../app/compose.ts";
import type { Config } from "../config/schema.ts";
import { type PlainRequest, plainRequest } from "../generation/plain-request.ts";
import { MemoryStore } from "../sessions/stores/memory-store.ts";
import { readAll, showProgress, type Terminal, write } from "./terminal.ts";

const UNLIMITED = Number.MAX_SAFE_INTEGER;
const NAMES = { prompts: "the prompt", maxTokens: "--max-tokens", numLogprobs: "log-probabilities" };

export interface GenerateOptions extends Omit<PlainRequest, "names" | "prompt"> {
  /** `-` reads standard input. */
  readonly prompt: string;
  /** Write the prompt before its continuation. */
  readonly echo: boolean;
}

/** Text on stdout, a line of figures on stderr. @throws what loading or the generator throws */
export async function generate(given: Config, options: GenerateOptions, terminal: Terminal): Promise<void> {
  const { stdin, stdout, stderr } = terminal;
  const text = options.prompt === "-" ? await readAll(stdin) : options.prompt;
  // Limits protect a server from its clients; this is one user at their own machine.
  const config = { ...given, maxBatch: 1, maxPromptTokens: UNLIMITED, maxOutputTokens: UNLIMITED };
  const tokenizer = await requireTokenizer(config);
  await withEngine(config, { onProgress: showProgress(terminal) }, async (engine, model) => {
    checkVocabulary(tokenizer, model.manifest);
    const generator = createGenerator(config, model, { engine, tokenizer, store: new MemoryStore({ maxBytes: 0 }) });
    const startedAtMs = performance.now();
    let numTokens = 0;
    if (options.echo) await write(stdout, text);
    const request = plainRequest({ ...options, names: NAMES, prompt: { type: "text", text } });
    for await (const event of generator.generate(request)) {
      if (event.type === "delta" && event.text !== "") await write(stdout, event.text);
      if (event.type === "usage") numTokens = event.usage.completionTokens;
    }
    await write(stdout, "\n");
    const seconds = (performance.now() - startedAtMs) / 1000;
    const rate = Math.round(numTokens / seconds);
    await write(stderr, `${numTokens} tokens in ${seconds.toFixed(2)} s, ${rate} tokens/s\n`);
  });
}
