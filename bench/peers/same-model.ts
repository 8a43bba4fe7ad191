/**
 * The check that two servers run one model: the log-probabilities of the likeliest tokens, step by
 * step.
 */
import type { Target } from "../../src/bench/load/stream-client.ts";

/** Per generated token: token's text → its log-probability, for the likeliest ones. */
export type Steps = readonly ReadonlyMap<string, number>[];

const NUM_TOP = 5;

/** Greedy. @throws Error if the server does not answer as asked */
export async function likeliestTokens(target: Target, promptIds: readonly number[], numTokens: number): Promise<Steps> {
  const options = { max_tokens: numTokens, temperature: 0, ignore_eos: true, logprobs: NUM_TOP };
  const response = await fetch(`${target.baseUrl}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ prompt: promptIds, ...options }),
  });
  const body = await response.text();
  if (!response.ok) throw new Error(`${target.baseUrl}: HTTP ${response.status}: ${body}`);
  const steps = parseSteps(body);
  if (steps.length !== numTokens) throw new Error(`${target.baseUrl} gave ${steps.length} of ${numTokens} tokens`);
  return steps;
}

/**
 * Lists, as OpenAI's completions have them, or objects, as its chats do; llama.cpp sends objects
 * for both.
 */
export function parseSteps(body: string): Steps {
  const { choices } = JSON.parse(body) as { choices: readonly { logprobs: CompletionLogprobs | ChatLogprobs }[] };
  const logprobs = choices[0]!.logprobs;
  return "content" in logprobs
    ? logprobs.content.map(({ top_logprobs }) => new Map(top_logprobs.map(({ token, logprob }) => [token, logprob])))
    : logprobs.top_logprobs.map((top) => new Map(Object.entries(top)));
}

interface CompletionLogprobs {
  readonly top_logprobs: readonly Readonly<Record<string, number>>[];
}

interface ChatLogprobs {
  readonly content: readonly {
    readonly top_logprobs: readonly { readonly token: string; readonly logprob: number }[];
  }[];
}

/**
 * The largest difference between log-probabilities of a token that both list. The last one of a
 * list may be missing from the other where two are nearly as likely.
 * @returns Infinity if the likeliest tokens differ
 */
export function largestDifference(a: Steps, b: Steps): number {
  let largest = 0;
  for (const [i, step] of a.entries()) {
    const other = b[i];
    if (other === undefined || likeliest(step) !== likeliest(other)) return Number.POSITIVE_INFINITY;
    for (const [token, logprob] of step) {
      const theirs = other.get(token);
      if (theirs !== undefined) largest = Math.max(largest, Math.abs(logprob - theirs));
    }
  }
  return largest;
}

function likeliest(step: ReadonlyMap<string, number>): string | undefined {
  return [...step].toSorted(([, a], [, b]) => b - a)[0]?.[0];
}
