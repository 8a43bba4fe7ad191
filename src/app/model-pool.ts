/**
 * Which of several models have their weights in memory. A model is loaded at its first request, and
 * unloaded once it has been idle for long enough or once another one needs its room: the least
 * recently used first. Its sessions, stores and tokenizer stay.
 */
import { strict as assert } from "node:assert";
import { setImmediate } from "node:timers/promises";
import type { Engine } from "../engine/engine.ts";
import { DenseMambaError } from "../errors.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import { type Repeat, repeatInBackground } from "../sessions/locks.ts";
import { LoadFailures } from "./load-failures.ts";
import { overriding } from "./observers.ts";

/** Between checks for models that have been idle for long enough. */
const SWEEP_MS = 1000;

export interface ModelPoolOptions {
  /** Of all loaded models together. */
  readonly maxBytes: number;
  /** How long a model stays loaded after its last request, unless that request says otherwise. */
  readonly keepAliveMs: number;
  /** Milliseconds on the engines' clock. */
  readonly now: () => number;
  readonly repeat?: Repeat;
}

export interface PoolObserver {
  /** @param durationMs includes the time until there was room */
  onLoaded(load: { readonly durationMs: number; readonly bytes: number }): void;
  onUnloaded(): void;
}

/** Of weights, and of states in slots. */
export interface PooledModelOptions {
  readonly name: string;
  readonly bytes: number;
  readonly observer: PoolObserver;
}

type PooledEngine = Pick<Engine, "status" | "load" | "lastUsedAtMs" | "sleep">;

export class ModelPool {
  readonly #options: ModelPoolOptions;
  readonly #models: PooledModel[] = [];
  readonly #stopSweeping: () => void;
  /** Ends when those that asked for room before have it. */
  #lastTurn: Promise<unknown> = Promise.resolve();
  #onChange: (() => void)[] = [];
  #isClosed = false;

  constructor(options: ModelPoolOptions) {
    const { repeat = repeatInBackground } = options;
    this.#options = options;
    this.#stopSweeping = repeat(SWEEP_MS, () => this.#sweep());
  }

  get maxBytes(): number {
    return this.#options.maxBytes;
  }

  get loadedBytes(): number {
    return this.#models.reduce((sum, { bytes, hasRoom }) => sum + (hasRoom ? bytes : 0), 0);
  }

  add(options: PooledModelOptions): PooledModel {
    const { keepAliveMs, now } = this.#options;
    const model = new PooledModel(options, {
      now,
      keepAliveMs,
      takeRoom: () => this.#takeRoom(model),
      onChange: () => this.#changed(),
    });
    this.#models.push(model);
    return model;
  }

  /** Nothing is loaded any more. */
  close(): void {
    this.#isClosed = true;
    this.#stopSweeping();
    this.#changed();
  }

  /** In the order in which they ask, so that a busy model cannot keep out another one. */
  #takeRoom(model: PooledModel): Promise<void> {
    const turn = this.#lastTurn.then(() => this.#makeRoom(model));
    this.#lastTurn = turn.catch(() => undefined);
    return turn;
  }

  /** @throws `model_load_failed`, `shutting_down` */
  async #makeRoom(model: PooledModel): Promise<void> {
    const { name, bytes } = model;
    if (bytes > this.maxBytes) throw new DenseMambaError("model_load_failed", tooLarge(name, bytes, this.maxBytes));
    for (;;) {
      if (this.#isClosed) throw new DenseMambaError("shutting_down", "the server is shutting down");
      if (this.loadedBytes + bytes <= this.maxBytes) break;
      // A request that has waited for a model submits its sequences first.
      await setImmediate();
      const victim = this.#leastRecentlyUsed();
      if (victim === undefined) await new Promise<void>((resolve) => this.#onChange.push(resolve));
      else await victim.engine.sleep();
    }
    model.hasRoom = true;
  }

  /** Idle ones before busy ones, which first answer what is in their slots. */
  #leastRecentlyUsed(): PooledModel | undefined {
    const loaded = this.#models.filter(({ hasRoom, engine }) => hasRoom && engine.status.state === "ready");
    const isBefore = (a: PooledModel, b: PooledModel) =>
      a.isIdle === b.isIdle ? a.engine.lastUsedAtMs < b.engine.lastUsedAtMs : a.isIdle;
    return loaded.reduce<PooledModel | undefined>(
      (first, model) => (first === undefined || isBefore(model, first) ? model : first),
      undefined,
    );
  }

  #sweep(): void {
    const nowMs = this.#options.now();
    for (const { hasRoom, isIdle, engine, keepAliveMs } of this.#models) {
      if (hasRoom && isIdle && nowMs - engine.lastUsedAtMs >= keepAliveMs) void engine.sleep();
    }
  }

  #changed(): void {
    for (const resolve of this.#onChange) resolve();
    this.#onChange = [];
  }
}

interface PoolParts {
  readonly now: () => number;
  readonly keepAliveMs: number;
  readonly takeRoom: () => Promise<void>;
  readonly onChange: () => void;
}

export class PooledModel {
  readonly name: string;
  readonly bytes: number;
  keepAliveMs: number;
  /** It is loaded, or being loaded. Set by the pool. */
  hasRoom = false;
  readonly #parts: PoolParts;
  readonly #observer: PoolObserver;
  readonly failures: LoadFailures;
  #engine: PooledEngine | undefined;

  constructor({ name, bytes, observer }: PooledModelOptions, parts: PoolParts) {
    this.name = name;
    this.bytes = bytes;
    this.keepAliveMs = parts.keepAliveMs;
    this.failures = new LoadFailures(name, parts.now);
    this.#observer = observer;
    this.#parts = parts;
  }

  /** To be set before the first runner is opened. */
  set engine(engine: PooledEngine) {
    this.#engine = engine;
  }

  get engine(): PooledEngine {
    assert(this.#engine !== undefined, "the model has an engine");
    return this.#engine;
  }

  get isIdle(): boolean {
    const { numRunning, numWaiting, numSuspended } = this.engine.load;
    return numRunning + numWaiting + numSuspended === 0;
  }

  /** Undefined: the pool's. */
  keepAlive(ms: number = this.#parts.keepAliveMs): void {
    this.keepAliveMs = ms;
  }

  /**
   * Waits for room, then opens a runner; closing it gives the room back.
   * @throws `model_load_failed`, also without a try for some time after a failure; `shutting_down`
   */
  async open(openRunner: () => Promise<ModelRunner>): Promise<ModelRunner> {
    const { now, takeRoom } = this.#parts;
    this.failures.check();
    const startedAtMs = now();
    let runner: ModelRunner;
    try {
      await takeRoom();
      runner = await openRunner();
    } catch (cause) {
      this.#leave();
      if (cause instanceof DenseMambaError && cause.code === "shutting_down") throw cause;
      throw this.failures.add(cause);
    }
    this.failures.clear();
    this.#observer.onLoaded({ durationMs: now() - startedAtMs, bytes: this.bytes });
    this.#parts.onChange();
    let isClosed = false;
    const close = async () => {
      try {
        await runner.close();
      } finally {
        if (!isClosed) this.#observer.onUnloaded();
        if (!isClosed) this.#leave();
        isClosed = true;
      }
    };
    return overriding(runner, { close });
  }

  #leave(): void {
    this.hasRoom = false;
    this.#parts.onChange();
  }
}

function tooLarge(name: string, bytes: number, maxBytes: number): string {
  return `${name} takes ${bytes} bytes with its slots, and all loaded models may take ${maxBytes} together: raise --models-bytes, or lower --max-batch`;
}
