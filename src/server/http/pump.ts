/**
 * Drives one generation into one transport. What becomes ready within a few milliseconds leaves in one write; a slow reader stops the
 * pulling of events; a failure is rendered as the stream's last message. Knows neither SSE nor WebSocket.
 */
import { setImmediate } from "node:timers/promises";
import type { GenerationEvent, GenerationUsage, PromptEvent } from "../../generation/events.ts";
import type { StreamRenderer } from "../openai/renderer.ts";
import { FlushPace, type FlushPaceOptions } from "./flush-throttle.ts";

const PROMPT_TOKENS_AT_ONCE = 256;

export interface Sink {
  /** Sends what the renderer has emitted since the last call. */
  flush(): void;
  /** More is unsent than should be: await `drained` before making more. */
  readonly isFull: boolean;
  /** Resolves once there is room again or the reader has gone. @throws `aborted` if the reader takes nothing for too long */
  drained(): Promise<void>;
}

export interface AdmittedGeneration {
  readonly first: GenerationEvent;
  readonly rest: AsyncIterator<GenerationEvent>;
}

/**
 * Waits for the first event, so that a refusal can still be an HTTP status.
 * @throws whatever the generation was refused with
 */
export async function admit(events: AsyncIterable<GenerationEvent>): Promise<AdmittedGeneration> {
  const rest = events[Symbol.asyncIterator]();
  const { done, value } = await rest.next();
  if (done) throw new Error("the generation ended without an event");
  return { first: value, rest };
}

export interface PumpParts {
  readonly renderer: StreamRenderer;
  readonly sink: Sink;
  readonly pacing: FlushPaceOptions;
  readonly onFailure: (error: unknown) => void;
}

/** @returns the usage, unless the generation failed; never throws: failures go to the reader and to `onFailure` */
export async function pump(
  { first, rest }: AdmittedGeneration,
  { renderer, sink, pacing, onFailure }: PumpParts,
): Promise<GenerationUsage | undefined> {
  let hasWritten = false;
  const pace = new FlushPace(() => {
    renderer.flush();
    sink.flush();
    hasWritten = true;
  }, pacing);
  const pushPrompt = async (event: PromptEvent) => {
    for (const part of partsOf(event)) {
      if (sink.isFull) await sink.drained();
      renderer.push(part);
      pace.flushNow();
      await setImmediate();
    }
  };
  let usage: GenerationUsage | undefined;
  try {
    for (let event: GenerationEvent | undefined = first; event !== undefined; event = await next(rest)) {
      if (event.type === "prompt") await pushPrompt(event);
      else renderer.push(event);
      if (event.type === "usage") usage = event.usage;
      pace.request();
      if (!hasWritten) continue; // nor can the sink have filled up; asking a socket costs as much as rendering a token
      hasWritten = false;
      if (sink.isFull) await sink.drained();
    }
  } catch (error) {
    renderer.fail(error);
    onFailure(error);
    // Ends a generation that is not itself what failed.
    await rest.return?.().catch(() => {});
  }
  pace.flushNow();
  return usage;
}

/** A long prompt with its log-probabilities is too much for one message: the text comes with the first of several. */
function* partsOf(event: PromptEvent): Generator<PromptEvent> {
  const { tokenIds, logprobs, textOffsets = [] } = event;
  if (logprobs === undefined) yield event;
  else {
    for (let start = 0; start === 0 || start < tokenIds.length; start += PROMPT_TOKENS_AT_ONCE) {
      const end = start + PROMPT_TOKENS_AT_ONCE;
      const text = start === 0 ? event.text : "";
      const part = { tokenIds: tokenIds.slice(start, end), textOffsets: textOffsets.slice(start, end) };
      yield { ...event, ...part, text, logprobs: logprobs.slice(start, end) };
    }
  }
}

async function next(events: AsyncIterator<GenerationEvent>): Promise<GenerationEvent | undefined> {
  const { done, value } = await events.next();
  return done ? undefined : value;
}
