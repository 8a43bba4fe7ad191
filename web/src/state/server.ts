/** What the server says of itself: whether it is ready, its models, sessions and figures. */
import { computed, type Signal, signal } from "@preact/signals";
import { ApiError } from "../api/errors.ts";
import type { HttpApi } from "../api/http.ts";
import { sample } from "../api/prometheus.ts";
import type { Load, Model, Readiness, Session } from "../api/wire.ts";

/** "unknown" until the first answer. */
export type ServerStatus = Readiness["status"] | "unknown" | "unreachable";

export interface Figures extends Load {
  /** Of prompt tokens that were looked up in cached states; undefined before the first. */
  readonly cacheHitShare: number | undefined;
}

const READY_MS = 5000;
const NOT_READY_MS = 1000;

export class Server {
  readonly status: Signal<ServerStatus> = signal("unknown");
  readonly statusError: Signal<string | undefined> = signal(undefined);
  readonly models: Signal<readonly Model[]> = signal([]);
  readonly sessions: Signal<readonly Session[]> = signal([]);
  readonly figures: Signal<Figures | undefined> = signal(undefined);
  /** Whether requests need a key, and have none or a wrong one. */
  readonly needsKey: Signal<boolean> = signal(false);
  readonly isReady = computed(() => this.status.value === "ready" || this.status.value === "sleeping");
  readonly #http: HttpApi;

  constructor(http: HttpApi) {
    this.#http = http;
  }

  /** Looks after the server for as long as the page is seen. */
  async watch({ sleep, isSeen }: { sleep: (ms: number) => Promise<void>; isSeen: () => boolean }): Promise<never> {
    for (;;) {
      if (isSeen()) await this.refresh();
      await sleep(this.isReady.value ? READY_MS : NOT_READY_MS);
    }
  }

  async refresh(): Promise<void> {
    await this.#refreshStatus();
    if (!this.isReady.value || this.needsKey.value) return;
    try {
      if (this.models.value.length === 0) this.models.value = await this.#http.models();
      await Promise.all([this.refreshSessions(), this.#refreshFigures()]);
    } catch (error) {
      this.notice(error);
    }
  }

  /** A key has been given. */
  async retryWithKey(): Promise<void> {
    this.needsKey.value = false;
    await this.refresh();
  }

  /** Of a request that failed. */
  notice(error: unknown): void {
    if (!(error instanceof ApiError)) return;
    if (error.status === 401) this.needsKey.value = true;
    if (error.status === 0) this.status.value = "unreachable";
  }

  async refreshSessions(): Promise<void> {
    this.sessions.value = await this.#http.sessions();
  }

  async #refreshStatus(): Promise<void> {
    try {
      const { status, error } = await this.#http.ready();
      this.status.value = status;
      this.statusError.value = error;
    } catch {
      this.status.value = "unreachable";
      this.statusError.value = undefined;
    }
  }

  async #refreshFigures(): Promise<void> {
    const [load, metrics] = await Promise.all([this.#http.load(), this.#http.metrics()]);
    const queries = sample(metrics, "densemamba_prefix_cache_queries_total");
    const hits = sample(metrics, "densemamba_prefix_cache_hits_total");
    this.figures.value = { ...load, cacheHitShare: queries && hits !== undefined ? hits / queries : undefined };
  }
}
