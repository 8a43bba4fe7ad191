/** What watches the engine for the metrics and the log. */
import type { EngineObserver } from "../engine/observer.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import type { Log } from "../server/deps.ts";

/** Passes everything on to `metrics`, and faults and recoveries to `log` as well. */
export function observeEngine(metrics: EngineObserver, log: Log): EngineObserver {
  let isRecovering = false;
  return {
    onStep: (step) => metrics.onStep(step),
    onSequenceEnd: (end) => metrics.onSequenceEnd(end),
    onStatus(status) {
      metrics.onStatus(status);
      if (status.state === "recovering") log.error({ error: status.error }, "engine recovering");
      if (status.state === "ready" && isRecovering) log.warn({ runner: status.runner }, "engine ready again");
      isRecovering = status.state === "recovering";
    },
  };
}

export interface SnapshotObserver {
  onSnapshotCaptured(durationMs: number): void;
  onSnapshotRestored(durationMs: number): void;
}

/** Wraps a runner: reports how long states take to copy out of and into slots. */
export function observeSnapshots(runner: ModelRunner, observer: SnapshotObserver, now: () => number): ModelRunner {
  return overriding(runner, {
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
  });
}

/** The same runner with other methods in place of some of its own. */
export function overriding(runner: ModelRunner, methods: Partial<ModelRunner>): ModelRunner {
  return {
    manifest: runner.manifest,
    numSlots: runner.numSlots,
    description: runner.description,
    run: (input) => runner.run(input),
    clearSlot: (slot) => runner.clearSlot(slot),
    copySlot: (from, to) => runner.copySlot(from, to),
    swapSlots: (a, b) => runner.swapSlots(a, b),
    readSlot: (slot) => runner.readSlot(slot),
    writeSlot: (slot, state) => runner.writeSlot(slot, state),
    close: () => runner.close(),
    ...methods,
  };
}
