/**
 * What clients read off the wire is what PyTorch computes: the log-probabilities of held-back
 * prompts, from a fixture that models/recipes/goldens made, alone, together, in chunks, and in a
 * session that goes on over five requests.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import type { TalesFixture } from "../helpers/torch-fixtures.ts";

const TOLERANCE = 1e-3;
/** Shorter than most of the prompts. */
const PREFILL_CHUNK = 16;

const { prompts } = JSON.parse(
  readFileSync(path.join(import.meta.dirname, "../fixtures/torch-densemamba-tales.json"), "utf8"),
) as TalesFixture;

let server: RealServer;
beforeAll(async () => {
  server = await startRealServer({ limits: { maxBatch: 8, maxQueue: 8, prefillChunk: PREFILL_CHUNK } });
});
afterAll(() => server?.close());

interface Scores {
  readonly choices: readonly {
    readonly logprobs: {
      readonly token_logprobs: readonly (number | null)[];
      readonly top_logprobs: readonly (Readonly<Record<string, number>> | null)[];
    };
  }[];
}

async function score(body: object): Promise<Scores["choices"]> {
  const response = await post(`${server.url}/v1/completions`, { max_tokens: 0, echo: true, logprobs: 1, ...body });
  expect(response.status).toBe(200);
  return ((await response.json()) as Scores).choices;
}

function expectClose(given: readonly (number | null)[], expected: readonly (number | null)[]): void {
  expect(given.length).toBe(expected.length);
  for (const [position, logprob] of given.entries()) {
    if (logprob === null || expected[position] === null) continue;
    expect(Math.abs(logprob - expected[position]!), `position ${position}`).toBeLessThanOrEqual(TOLERANCE);
  }
}

it.each(prompts.map((prompt) => [prompt.token_ids.length, prompt] as const))(
  "scores a prompt of %i tokens, read in chunks, as PyTorch does, with the same likeliest tokens",
  async (_length, { token_ids, logprobs, argmax }) => {
    const [choice] = await score({ prompt: token_ids });
    const { token_logprobs, top_logprobs } = choice!.logprobs;
    expect(token_logprobs[0]).toBeNull();
    expectClose(token_logprobs, logprobs);
    for (let position = 1; position < token_ids.length; position++) {
      // The likeliest one's log-probability; it is the given token's own exactly where PyTorch's
      // argmax says so.
      const best = Math.max(...Object.values(top_logprobs[position]!));
      expect(best === token_logprobs[position], `position ${position}`).toBe(
        argmax[position - 1] === token_ids[position],
      );
    }
  },
);

it("scores prompts of unequal lengths together as PyTorch does each alone", async () => {
  const choices = await score({ prompt: prompts.map((prompt) => prompt.token_ids) });
  for (const [index, { logprobs }] of prompts.entries()) expectClose(choices[index]!.logprobs.token_logprobs, logprobs);
});

it("scores a text that comes in five requests of one session as PyTorch scores the whole", async () => {
  const { token_ids, logprobs } = prompts.reduce((a, b) => (b.token_ids.length > a.token_ids.length ? b : a));
  await post(`${server.url}/v1/sessions`, { session_id: "parts" });
  const size = Math.ceil(token_ids.length / 5);
  let numScored = 0;
  for (let start = 0; start < token_ids.length; start += size) {
    const [choice] = await score({ prompt: token_ids.slice(start, start + size), session_id: "parts" });
    const scores = choice!.logprobs.token_logprobs;
    expectClose(scores, logprobs.slice(start, start + size));
    numScored += scores.filter((logprob) => logprob !== null).length;
  }
  // A state holds no logits: the first token of each part goes unscored, and no other.
  expect(numScored).toBe(token_ids.length - 5);
});
