/** A runner that tells how long copying states in and out takes. Everything else passes straight through. */
import type { ModelRunner, RunInput } from "../runtime/runner.ts";

export interface SnapshotObserver {
  onSnapshotCaptured(durationMs: number): void;
  onSnapshotRestored(durationMs: number): void;
}

export function observeSnapshots(runner: ModelRunner, observer: SnapshotObserver, now: () => number): ModelRunner {
  return {
    manifest: runner.manifest,
    numSlots: runner.numSlots,
    description: runner.description,
    run: (input: RunInput) => runner.run(input),
    clearSlot: (slot) => runner.clearSlot(slot),
    copySlot: (from, to) => runner.copySlot(from, to),
    swapSlots: (a, b) => runner.swapSlots(a, b),
    async readSlot(slot) {
      const startedAtMs = now();
      const state = await runner.readSlot(slot);
      observer.onSnapshotCaptured(now() - startedAtMs);
      return state;
    },
    async writeSlot(slot, state) {
      const startedAtMs = now();
      await runner.writeSlot(slot, state);
      observer.onSnapshotRestored(now() - startedAtMs);
    },
    close: () => runner.close(),
  };
}
