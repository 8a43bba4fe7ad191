/**
 * llama.cpp through its own programs: `llama-bench` and `llama-batched-bench`, each call a fresh
 * process that warms up by itself, and `llama-server` for what a client sees.
 */
import { ServerProcess } from "../../src/bench/server-process.ts";
import { type LlamaTools, runTool } from "./install.ts";

export interface LlamaModel {
  readonly tools: LlamaTools;
  readonly ggufPath: string;
  readonly threads: number;
}

/** Whether a model can, by its path. */
const repackable = new Map<string, Promise<boolean>>();

/**
 * llama.cpp repacks weights for the instructions that it finds. With AMX it then crashes on any
 * prompt of a Mamba in eight bits (a segmentation fault), so that everything but single tokens has
 * to be measured without.
 */
export function readsPromptsRepacked({ tools, ggufPath, threads }: LlamaModel): Promise<boolean> {
  const known =
    repackable.get(ggufPath) ??
    runTool(tools["llama-bench"], [...benchOptions(ggufPath, threads), "-p", "8", "-n", "0"]).then(
      () => true,
      () => false,
    );
  repackable.set(ggufPath, known);
  return known;
}

function benchOptions(ggufPath: string, threads: number): string[] {
  return ["-m", ggufPath, "-t", `${threads}`, "-ngl", "0", "-r", "1", "-o", "json"];
}

/** Tokens per second of one `llama-bench` test: reading a prompt (pp) or generating (tg). */
export async function llamaBench(
  model: LlamaModel,
  test: { readonly kind: "pp" | "tg"; readonly numTokens: number },
): Promise<number> {
  const { tools, ggufPath, threads } = model;
  const sizes = test.kind === "pp" ? ["-p", `${test.numTokens}`, "-n", "0"] : ["-p", "0", "-n", `${test.numTokens}`];
  const repack = test.kind === "pp" && !(await readsPromptsRepacked(model)) ? ["--repack", "0"] : [];
  const options = [...benchOptions(ggufPath, threads), ...repack, ...sizes];
  return parseLlamaBench(await runTool(tools["llama-bench"], options));
}

/** @throws Error if the output is not that of a single test */
export function parseLlamaBench(json: string): number {
  const tests = JSON.parse(json) as readonly { readonly avg_ts?: unknown }[];
  const rate = tests[0]?.avg_ts;
  if (tests.length !== 1 || typeof rate !== "number") throw new Error(`llama-bench reported ${json.slice(0, 500)}`);
  return rate;
}

/** Tokens per second of all sequences together while they generate. */
export async function llamaBatchedBench(
  model: LlamaModel,
  { numSequences, numTokens }: { readonly numSequences: number; readonly numTokens: number },
): Promise<number> {
  const { tools, ggufPath, threads } = model;
  const numPrompt = 8;
  const context = numSequences * (numPrompt + numTokens);
  const sizes = ["-c", `${context}`, "-npp", `${numPrompt}`, "-ntg", `${numTokens}`, "-npl", `${numSequences}`];
  const repack = await repackOptions(model);
  const options = ["-m", ggufPath, "-t", `${threads}`, "-ngl", "0", ...repack, "--output-format", "jsonl"];
  // NOTE: it prints from a thread that its exit may kill. It then prints nothing, and has to
  // measure again.
  for (let attempt = 1; ; attempt++) {
    const output = await runTool(tools["llama-batched-bench"], [...options, ...sizes]);
    if (output.trim() !== "" || attempt === MAX_ATTEMPTS) return parseBatchedBench(output);
  }
}

const MAX_ATTEMPTS = 5;

async function repackOptions(model: LlamaModel): Promise<string[]> {
  return (await readsPromptsRepacked(model)) ? [] : ["--no-repack"];
}

/** @throws Error if it has no line of results */
export function parseBatchedBench(output: string): number {
  const line = output.split("\n").find((candidate) => candidate.includes('"speed_tg"'));
  const rate = line === undefined ? undefined : (JSON.parse(line) as { speed_tg?: unknown }).speed_tg;
  if (typeof rate !== "number") throw new Error(`llama-batched-bench reported ${output.slice(-500)}`);
  return rate;
}

/**
 * A server with `numSlots` slots, without caches that would only cost it time: no prompt repeats.
 */
export async function startLlamaServer(model: LlamaModel, numSlots: number): Promise<ServerProcess> {
  const { tools, ggufPath, threads } = model;
  const contextPerSlot = 16_384;
  const args = ["-m", ggufPath, "-t", `${threads}`, "-ngl", "0", "-np", `${numSlots}`, ...(await repackOptions(model))];
  const lean = ["-c", `${numSlots * contextPerSlot}`, "--cache-ram", "0", "--ctx-checkpoints", "0", "--no-webui"];
  return ServerProcess.start({
    command: tools["llama-server"],
    args: (port) => [...args, ...lean, "--host", "127.0.0.1", "--port", `${port}`],
    readyPath: "/health",
  });
}
