/**
 * One reader's way through a response's events: those that there are, then those that come, at the pace of its transport.
 * Knows neither SSE nor WebSocket, and no generation.
 */
import { setImmediate } from "node:timers/promises";
import type { Sink } from "../http/pump.ts";
import type { RenderedEvent, Transcript } from "./transcript.ts";

export interface Reading {
  readonly transcript: Transcript;
  /** Events that may be read by now. */
  readonly numEvents: number;
  /** No more will come, or the reader has left. */
  readonly isOver: boolean;
  /** Told by the reader: it takes nothing at the moment. */
  isBehind: boolean;
  /** Resolves when there is more to read, or it is over. */
  changed(): Promise<void>;
  /** Idempotent. */
  leave(): void;
}

/** Long replays and large events leave in pieces of about so much, between which everybody else has a turn. */
const BURST = { events: 256, length: 256 * 1024 };

/**
 * Sends events from number `next` on until the response has ended or the reader has left, and leaves.
 * @throws `aborted` if the transport takes nothing for too long
 */
export async function follow(
  reading: Reading,
  next: number,
  emit: (event: RenderedEvent, sequenceNumber: number) => void,
  sink: Sink,
): Promise<void> {
  let index = next;
  try {
    for (;;) {
      const end = Math.min(reading.numEvents, index + BURST.events);
      for (let length = 0; index < end && length < BURST.length; index++) {
        const event = reading.transcript.render(index);
        emit(event, index);
        length += event.json.length;
      }
      sink.flush();
      if (sink.isFull) {
        reading.isBehind = true;
        await sink.drained();
        reading.isBehind = false;
      }
      if (index < reading.numEvents) await setImmediate();
      else if (reading.isOver) return;
      else await reading.changed();
    }
  } finally {
    reading.leave();
  }
}

/** A response that has ended, from its record. */
export function keptReading(transcript: Transcript): Reading {
  const { numEvents } = transcript;
  let hasLeft = false;
  return {
    transcript,
    get numEvents() {
      return hasLeft ? 0 : numEvents;
    },
    isOver: true,
    isBehind: false,
    changed: () => Promise.resolve(),
    leave: () => {
      hasLeft = true;
    },
  };
}
