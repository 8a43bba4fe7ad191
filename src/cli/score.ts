/**
 * `densemamba score`: the log-probability of each given token after those before it, as JSON. For checking a conversion
 * against another implementation: ids in, numbers out, no tokenizer, no sampling.
 */
import type { Config } from "../config.ts";
import type { ScoredToken } from "../engine/sequence.ts";
import { DenseMambaError } from "../errors.ts";
import { NUM_CANDIDATES } from "../model/artifact.ts";
import { GREEDY } from "../sampling/params.ts";
import { startEngine } from "./compose.ts";
import { inPrecision } from "./evaluation.ts";
import { loadModel } from "./load-model.ts";
import { showProgress } from "./progress.ts";
import { readAll, type Terminal, write } from "./terminal.ts";

export interface ScoreOptions {
  /** `1,2,3`, or `-` to read them from standard input. */
  readonly tokenIds: string;
  /** How many of the likeliest tokens to list at each position. */
  readonly top: number;
}

/** One JSON object on stdout and nothing else there. @throws `invalid_value`, and what loading throws. */
export async function score(config: Config, options: ScoreOptions, terminal: Terminal): Promise<void> {
  const tokenIds = parseTokenIds(options.tokenIds === "-" ? await readAll(terminal.stdin) : options.tokenIds);
  if (options.top > NUM_CANDIDATES) {
    throw new DenseMambaError("invalid_value", `--top must be at most ${NUM_CANDIDATES}, ${options.top} given`);
  }
  const model = await loadModel(config, {
    numSlots: 1,
    onProgress: showProgress(terminal.stderr, () => performance.now()),
    note: () => undefined,
  });
  const engine = await startEngine({ ...config, maxBatch: 1 }, model);
  try {
    const [sequence] = engine.submit([
      {
        promptIds: tokenIds,
        sampling: GREEDY,
        maxTokens: 0,
        minTokens: 0,
        stopTokenIds: new Set(),
        numPromptLogprobs: options.top,
        signal: new AbortController().signal,
      },
    ]);
    for await (const event of sequence!.events) {
      if (event.type !== "prompt") continue;
      const positions = [...event.logprobs!].map((scored, index) => toPosition(tokenIds[index]!, scored, index));
      await write(terminal.stdout, `${JSON.stringify({ positions })}\n`);
    }
  } catch (error) {
    throw inPrecision(error, model.manifest.precision);
  } finally {
    await engine.close({ deadlineMs: 0 });
  }
}

/** Separated by commas or white space, brackets allowed: also a JSON array. */
function parseTokenIds(text: string): number[] {
  const parts = text.split(/[\s,[\]]+/).filter((part) => part !== "");
  const wrong = parts.find((part) => !/^\d+$/.test(part));
  if (wrong !== undefined || parts.length === 0) {
    throw new DenseMambaError(
      "invalid_value",
      `--token-ids must list at least one token id, an integer from 0, ${JSON.stringify(wrong ?? text)} given`,
    );
  }
  return parts.map(Number);
}

/** `null` of the first token, which nothing is read before. @throws `runtime_fault` for what JSON cannot hold. */
function toPosition(tokenId: number, scored: ScoredToken | null, index: number) {
  const top = scored?.top.map((token) => ({ token_id: token.tokenId, logprob: token.logprob })) ?? [];
  if (scored !== null && ![scored, ...scored.top].every(({ logprob }) => Number.isFinite(logprob))) {
    throw new DenseMambaError("runtime_fault", `the model gave a logit of -Infinity for token ${index} of the prompt`);
  }
  return { token_id: tokenId, logprob: scored?.logprob ?? null, top };
}
