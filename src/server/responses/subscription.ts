/**
 * How one client reads the events of a response: first those that exist, then new ones, no faster
 * than its transport takes them. Knows neither SSE nor WebSocket, and no generation.
 */
import { setImmediate } from "node:timers/promises";
import type { Sink } from "../http/stream-writer.ts";
import type { RenderedEvent, Transcript } from "./transcript.ts";

export interface Subscription {
  readonly transcript: Transcript;
  /** How many events may be read by now. */
  readonly numEvents: number;
  /** No more events will come, or the subscription is closed. */
  readonly isOver: boolean;
  /** Set by the subscriber while its transport is full. */
  isBehind: boolean;
  /** Resolves when there is more to read, or it is over. */
  changed(): Promise<void>;
  /** Idempotent. */
  close(): void;
}

/**
 * Long replays and large events are sent in bursts of about this size, between which other work
 * runs.
 */
const BURST = { events: 256, length: 256 * 1024 };

/**
 * Sends the events from number `next` on until the response has ended or the subscription is
 * closed, and closes it.
 * @throws `aborted` if the client reads nothing for too long
 */
export async function streamEvents(
  subscription: Subscription,
  next: number,
  emit: (event: RenderedEvent, sequenceNumber: number) => void,
  sink: Sink,
): Promise<void> {
  let index = next;
  try {
    for (;;) {
      const end = Math.min(subscription.numEvents, index + BURST.events);
      for (let length = 0; index < end && length < BURST.length; index++) {
        const event = subscription.transcript.render(index);
        emit(event, index);
        length += event.json.length;
      }
      sink.flush();
      if (sink.isFull) {
        subscription.isBehind = true;
        await sink.drained();
        subscription.isBehind = false;
      }
      if (index < subscription.numEvents) await setImmediate();
      else if (subscription.isOver) return;
      else await subscription.changed();
    }
  } finally {
    subscription.close();
  }
}

/** A subscription to a response that has ended. */
export function storedSubscription(transcript: Transcript): Subscription {
  const { numEvents } = transcript;
  let isClosed = false;
  return {
    transcript,
    get numEvents() {
      return isClosed ? 0 : numEvents;
    },
    isOver: true,
    isBehind: false,
    changed: () => Promise.resolve(),
    close: () => {
      isClosed = true;
    },
  };
}
