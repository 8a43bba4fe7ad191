/** `densemamba generate`: one completion, streamed to the terminal as it comes. */
import type { Config } from "../config.ts";
import type { GenerationRequest } from "../generation/events.ts";
import { MemoryStore } from "../sessions/stores/memory-store.ts";
import { checkFit, createGenerator, requireTokenizer, startEngine } from "./compose.ts";
import { loadModel } from "./load-model.ts";
import { showProgress } from "./progress.ts";
import { readAll, type Terminal, write } from "./terminal.ts";

const UNLIMITED = Number.MAX_SAFE_INTEGER;

export interface GenerateOptions {
  /** `-` reads standard input. */
  readonly prompt: string;
  readonly maxTokens: number | undefined;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly seed: number | undefined;
  readonly stop: readonly string[];
  /** Write the prompt before its continuation. */
  readonly echo: boolean;
  readonly signal: AbortSignal;
}

/** Text on stdout, a line of figures on stderr. @throws what loading or the generator throws. */
export async function generate(config: Config, options: GenerateOptions, terminal: Terminal): Promise<void> {
  const prompt = options.prompt === "-" ? await readAll(terminal.stdin) : options.prompt;
  const tokenizer = await requireTokenizer(config);
  const model = await loadModel(config, {
    numSlots: 1,
    onProgress: showProgress(terminal.stderr, () => performance.now()),
    note: () => undefined,
  });
  // Limits protect a server from its clients; here is one user, at their own machine.
  const alone = { ...config, maxBatch: 1, maxPromptTokens: UNLIMITED, maxOutputTokens: UNLIMITED };
  checkFit(tokenizer, model.manifest);
  const engine = await startEngine(alone, model);
  try {
    const generator = createGenerator(alone, model, { engine, tokenizer, store: new MemoryStore({ maxBytes: 0 }) });
    const startedAtMs = performance.now();
    let numTokens = 0;
    if (options.echo) await write(terminal.stdout, prompt);
    for await (const event of generator.generate(toRequest(prompt, options))) {
      if (event.type === "delta" && event.text !== "") await write(terminal.stdout, event.text);
      if (event.type === "usage") numTokens = event.usage.completionTokens;
    }
    await write(terminal.stdout, "\n");
    const seconds = (performance.now() - startedAtMs) / 1000;
    const rate = Math.round(numTokens / seconds);
    await write(terminal.stderr, `${numTokens} tokens in ${seconds.toFixed(2)} s, ${rate} tokens/s\n`);
  } finally {
    await engine.close({ deadlineMs: 0 });
  }
}

function toRequest(prompt: string, options: GenerateOptions): GenerationRequest {
  const { temperature, topK, topP, minP, repetitionPenalty, seed } = options;
  return {
    names: { prompts: "the prompt", maxTokens: "--max-tokens", numLogprobs: "log-probabilities" },
    prompts: [{ type: "text", text: prompt }],
    numChoices: 1,
    bestOf: 1,
    sampling: {
      temperature,
      topK,
      topP,
      minP,
      repetitionPenalty,
      presencePenalty: 0,
      frequencyPenalty: 0,
      logitBias: new Map(),
      seed,
    },
    maxTokens: options.maxTokens,
    minTokens: 0,
    stopStrings: options.stop,
    stopTokenIds: [],
    ignoreEos: false,
    includeStopString: false,
    skipSpecialTokens: true,
    addSpecialTokens: true,
    echo: false,
    owner: "",
    signal: options.signal,
  };
}
