/**
 * A request's prompts → sequences in the engine, all or none. A prompt with several samples is read
 * once: the samples resume from the state before its last token.
 */
import type { Engine } from "../engine/engine.ts";
import type { ResumePoint, Sequence, SequenceRequest } from "../engine/sequence.ts";
import { DenseMambaError } from "../errors.ts";
import { GREEDY } from "../sampling/params.ts";
import { wordsOf } from "../sampling/random.ts";
import type { TokenMatcher } from "../sampling/token-matcher.ts";
import type { PreparedPrompt } from "./prompts.ts";

/** What generation needs of the engine. */
export type SequenceEngine = Pick<Engine, "submit"> & Partial<Pick<Engine, "wake" | "load">>;

/** What all sequences of a request share. `sampling.seed` is the first sample's. */
export type SequenceTemplate = Omit<SequenceRequest, "promptIds" | "resume" | "checkpoints" | "capture" | "matcher"> & {
  /** What holds a sample of this prompt to the request's constraint, if there is one. */
  readonly makeMatcher: (prompt: number) => TokenMatcher | undefined;
  /** Whether to capture the state at the end of this prompt's samples. */
  readonly capturesEnd: (prompt: PreparedPrompt) => boolean;
  /** Whether to capture the state before the answer too. */
  readonly capturesPrompt: boolean;
};

/**
 * @returns the sequences of the first prompt's samples, then of the second's, …
 * @throws as the engine does, and `aborted` if aborted while a shared prompt was being read
 */
export async function admit(
  engine: SequenceEngine,
  prompts: readonly PreparedPrompt[],
  numSamples: number,
  { capturesEnd, capturesPrompt, makeMatcher, ...template }: SequenceTemplate,
): Promise<Sequence[]> {
  // Prompt log-probabilities come from the sequence that reads the prompt.
  const isShared = numSamples > 1 && template.maxTokens > 0 && template.numPromptLogprobs === undefined;
  const ready = isShared ? await readOnce(engine, prompts, template.signal) : prompts;
  const requests = ready.flatMap((prompt, index) => {
    const { promptIds, resume, checkpoints } = prompt;
    const capture = { prompt: capturesPrompt, end: capturesEnd(prompt) };
    return Array.from({ length: numSamples }, (_, sample): SequenceRequest => {
      const matcher = makeMatcher(index);
      return {
        ...template,
        promptIds,
        capture,
        ...(resume && { resume }),
        ...(checkpoints && sample === 0 && { checkpoints }),
        ...(matcher && { matcher }),
        sampling: { ...template.sampling, seed: deriveSeed(template.sampling.seed, sample) },
      };
    });
  });
  try {
    return engine.submit(requests);
  } catch (error) {
    for (const { matcher } of requests) matcher?.close();
    throw error;
  }
}

/** The prompts with all but their last token read. */
export async function readOnce(
  engine: SequenceEngine,
  prompts: readonly PreparedPrompt[],
  signal: AbortSignal,
): Promise<PreparedPrompt[]> {
  const isLong = ({ promptIds }: PreparedPrompt) => promptIds.length > 1;
  const readers = engine.submit(
    prompts.filter(isLong).map(({ promptIds, resume, checkpoints }) => ({
      promptIds: promptIds.slice(0, -1),
      ...(resume && { resume }),
      ...(checkpoints && { checkpoints }),
      sampling: GREEDY,
      maxTokens: 0,
      minTokens: 0,
      stopTokenIds: new Set<number>(),
      capture: { prompt: true },
      signal,
    })),
  );
  const captured = await Promise.all(readers.map(captureOf));
  return prompts.map((prompt) => {
    if (!isLong(prompt)) return prompt;
    return { ...prompt, resume: captured.shift()!, promptIds: prompt.promptIds.slice(-1) };
  });
}

async function captureOf(sequence: Sequence): Promise<ResumePoint> {
  let captured: ResumePoint | undefined;
  for await (const event of sequence.events) if (event.type === "prompt") captured = event.captured;
  if (captured) return captured;
  throw new DenseMambaError("aborted", "the request was aborted while its prompt was being read");
}

/**
 * The first sample has the request's seed, so that n = 1 and n = 5 agree on it; the other seeds are
 * derived from it with Murmur3's finaliser, so that similar seeds give unrelated ones.
 */
export function deriveSeed(seed: number | bigint | undefined, sample: number): number | bigint | undefined {
  if (seed === undefined || sample === 0) return seed;
  const { low, high } = wordsOf(seed);
  return mix(mix(mix(low) ^ Math.imul(sample, 0x9e3779b9)) ^ high);
}

function mix(value: number): number {
  let bits = value >>> 0;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}
