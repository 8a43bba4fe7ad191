/**
 * Drives a generation into a stream of messages. A slow client stops the pulling of events; a
 * failure becomes the stream's last message. Knows no SSE.
 */
import { setImmediate } from "node:timers/promises";
import type { GenerationEvent, GenerationUsage, PromptEvent } from "../../generation/events.ts";
import { FlushThrottle, type FlushThrottleOptions } from "./flush-throttle.ts";
import type { Sink } from "./stream-writer.ts";

const PROMPT_TOKENS_PER_CHUNK = 256;

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
  const first = await next(rest);
  if (first === undefined) throw new Error("the generation ended without an event");
  return { first, rest };
}

/** The next event, or undefined at the end. */
export async function next(events: AsyncIterator<GenerationEvent>): Promise<GenerationEvent | undefined> {
  const { done, value } = await events.next();
  return done ? undefined : value;
}

/** Makes messages of events. */
export interface EventRenderer {
  /** May hold the event back until the next one or `flush`. */
  push(event: GenerationEvent): void;
  flush(): void;
  /** In place of further events: the generation failed in mid-stream. */
  fail(error: unknown): void;
}

export interface PumpParts {
  readonly renderer: EventRenderer;
  readonly sink: Sink;
  readonly throttle: FlushThrottleOptions;
  readonly onFailure: (error: unknown) => void;
}

/**
 * @returns the usage, unless the generation failed. Never throws: failures go to the client and to
 * `onFailure`
 */
export async function pump(
  { first, rest }: AdmittedGeneration,
  { renderer, sink, throttle, onFailure }: PumpParts,
): Promise<GenerationUsage | undefined> {
  let hasWritten = false;
  const flushes = new FlushThrottle(() => {
    renderer.flush();
    sink.flush();
    hasWritten = true;
  }, throttle);
  const pushPrompt = async (event: PromptEvent) => {
    for (const part of promptParts(event)) {
      if (sink.isFull) await sink.drained();
      renderer.push(part);
      flushes.flushNow();
      await setImmediate();
    }
  };
  let usage: GenerationUsage | undefined;
  try {
    for (let event: GenerationEvent | undefined = first; event !== undefined; event = await next(rest)) {
      if (event.type === "prompt") await pushPrompt(event);
      else renderer.push(event);
      if (event.type === "usage") usage = event.usage;
      flushes.request();
      // Without a write the sink cannot have filled up; to ask a socket costs as much as rendering
      // a token.
      if (!hasWritten) continue;
      hasWritten = false;
      if (sink.isFull) await sink.drained();
    }
  } catch (error) {
    renderer.fail(error);
    onFailure(error);
    // The failure may not be the generation's own: end it.
    await rest.return?.().catch(() => {});
  }
  flushes.flushNow();
  return usage;
}

/**
 * A long prompt with its log-probabilities is too much for one message. The first of several
 * carries the text.
 */
function* promptParts(event: PromptEvent): Generator<PromptEvent> {
  const { tokenIds, logprobs, textOffsets = [] } = event;
  if (logprobs === undefined) return yield event;
  for (let start = 0; start === 0 || start < tokenIds.length; start += PROMPT_TOKENS_PER_CHUNK) {
    const end = start + PROMPT_TOKENS_PER_CHUNK;
    const text = start === 0 ? event.text : "";
    const part = { tokenIds: tokenIds.slice(start, end), textOffsets: textOffsets.slice(start, end) };
    yield { ...event, ...part, text, logprobs: logprobs.slice(start, end) };
  }
}
