/**
 * The process around node-llama-cpp, started with `<module> <gguf> <threads>`: answers each task
 * that comes over IPC with tokens per second. Knows only that part of its interface which is
 * declared here.
 */
import { performance } from "node:perf_hooks";
import { pathToFileURL } from "node:url";
import { randomPrompt } from "../../src/bench/random-model.ts";
import { rateTogether, type StreamArrivals } from "../../src/bench/streams.ts";

export type NodeLlamaTask =
  | { readonly kind: "pp" | "tg"; readonly numTokens: number }
  | { readonly kind: "batch"; readonly numSequences: number; readonly numTokens: number };
export type NodeLlamaAnswer = { readonly rate: number } | { readonly error: string };

interface Sequence {
  evaluate(tokens: readonly number[], options: { readonly temperature: number }): AsyncIterable<number>;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  dispose(): void;
}

interface Context {
  getSequence(): Sequence;
  dispose(): Promise<void>;
}

interface Model {
  createContext(options: {
    readonly contextSize: number;
    readonly sequences: number;
    readonly batchSize: number;
    readonly threads: number;
  }): Promise<Context>;
}

interface NodeLlamaCpp {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<Model> }>;
}

const PROMPT_TOKENS = 8;

async function serve(): Promise<void> {
  const [modulePath, modelPath, threads] = process.argv.slice(2);
  const { getLlama } = (await import(pathToFileURL(modulePath!).href)) as NodeLlamaCpp;
  const llama = await getLlama({ gpu: false, build: "never", maxThreads: Number(threads), logLevel: "error" });
  const model = await llama.loadModel({ modelPath });
  process.on("disconnect", () => process.exit()); // the benchmark has ended
  process.on("message", (task: NodeLlamaTask) => {
    measure(model, task, Number(threads)).then(
      (rate) => process.send!({ rate } satisfies NodeLlamaAnswer),
      (error: unknown) => process.send!({ error: String(error) } satisfies NodeLlamaAnswer),
    );
  });
  process.send!({ rate: 0 } satisfies NodeLlamaAnswer); // loaded
}

async function measure(model: Model, task: NodeLlamaTask, threads: number): Promise<number> {
  const numSequences = task.kind === "batch" ? task.numSequences : 1;
  const context = await model.createContext({ contextSize: 2048, sequences: numSequences, batchSize: 512, threads });
  try {
    const sequences = Array.from({ length: numSequences }, () => context.getSequence());
    if (task.kind === "pp") {
      await sequences[0]!.evaluateWithoutGeneratingNewTokens(randomPrompt(task.numTokens, 1)); // warm-up
      const startMs = performance.now();
      await sequences[0]!.evaluateWithoutGeneratingNewTokens(randomPrompt(task.numTokens, 2));
      return (task.numTokens / (performance.now() - startMs)) * 1000;
    }
    return rateTogether(await Promise.all(sequences.map((sequence, i) => generate(sequence, task.numTokens, i))));
  } finally {
    await context.dispose();
  }
}

/** The first token and its prompt warm up. */
async function generate(sequence: Sequence, numTokens: number, seed: number): Promise<StreamArrivals> {
  const chunkAtMs: number[] = [];
  for await (const _ of sequence.evaluate(randomPrompt(PROMPT_TOKENS, seed), { temperature: 0 })) {
    chunkAtMs.push(performance.now());
    if (chunkAtMs.length > numTokens) break;
  }
  return { chunkAtMs, numTokens: chunkAtMs.length };
}

await serve();
