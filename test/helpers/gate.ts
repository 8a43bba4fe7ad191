/** A promise that the test resolves: generations wait at it instead of sleeping. */
import { setImmediate } from "node:timers/promises";

export interface Gate {
  readonly isOpen: boolean;
  readonly held: Promise<void>;
  release(): void;
}

export function gate(): Gate {
  let resolve = () => {};
  let isOpen = false;
  const held = new Promise<void>((resolveHeld) => {
    resolve = resolveHeld;
  });
  const release = () => {
    isOpen = true;
    resolve();
  };
  return {
    held,
    release,
    get isOpen() {
      return isOpen;
    },
  };
}

/** Deltas from `from` on wait until the gate is released, or the request is aborted. */
export function pauseAt(from: number, gate: Gate): (index: number, signal: AbortSignal) => Promise<void> {
  return async (index, signal) => {
    if (index < from || gate.isOpen || signal.aborted) return setImmediate();
    const aborted = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
    await Promise.race([gate.held, aborted]);
  };
}
