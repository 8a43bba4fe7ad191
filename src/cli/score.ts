/**
 * `densemamba score`: the log-probability of each given token after those before it, as JSON. It
 * checks a conversion against another implementation: ids in, numbers out, no tokenizer, no
 * sampling.
 */
import { withEngine } from "../app/compose.ts";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import { NUM_CANDIDATES } from "../model/artifact.ts";
import type { ScoredToken } from "../sampling/logprobs.ts";
import { GREEDY } from "../sampling/params.ts";
import { inPrecision, NumericFault } from "../sampling/rows.ts";
import { readAll, showProgress, type Terminal, write } from "./terminal.ts";

export interface ScoreOptions {
  /** `1,2,3`, or `-` to read them from standard input. */
  readonly tokenIds: string;
  /** How many of the likeliest tokens to list at each position. */
  readonly top: number;
}

/**
 * One JSON object on stdout and nothing else there.
 * @throws `invalid_value`, and what loading throws
 */
export async function score(config: Config, options: ScoreOptions, terminal: Terminal): Promise<void> {
  const promptIds = parseTokenIds(options.tokenIds === "-" ? await readAll(terminal.stdin) : options.tokenIds);
  if (options.top > NUM_CANDIDATES) {
    throw new DenseMambaError("invalid_value", `--top must be at most ${NUM_CANDIDATES}, ${options.top} given`);
  }
  await withEngine(config, { onProgress: showProgress(terminal) }, async (engine, { manifest }) => {
    try {
      const [sequence] = engine.submit([
        {
          promptIds,
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
        const positions = [...event.logprobs!].map((scored, index) => toPosition(promptIds[index]!, scored, index));
        await write(terminal.stdout, `${JSON.stringify({ positions })}\n`);
      }
    } catch (error) {
      throw inPrecision(error, manifest.precision);
    }
  });
}

/** Separated by commas or white space; brackets are allowed, so that a JSON array works too. */
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

/**
 * The first token has no score (`null`): nothing comes before it.
 * @throws `runtime_fault` for what JSON cannot hold
 */
function toPosition(tokenId: number, scored: ScoredToken | null, index: number) {
  const top = scored?.top.map((token) => ({ token_id: token.tokenId, logprob: token.logprob })) ?? [];
  if (scored !== null && ![scored, ...scored.top].every(({ logprob }) => Number.isFinite(logprob))) {
    throw new NumericFault(`the model gave a logit of -Infinity for token ${index} of the prompt`);
  }
  return { token_id: tokenId, logprob: scored?.logprob ?? null, top };
}
