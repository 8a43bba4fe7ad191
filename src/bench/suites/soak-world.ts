/** What the soak's users share: the server, the book, the cold reader, and the turnstile at which they are held. */
import { setTimeout as sleep } from "node:timers/promises";
import { decodeSnapshot, type SnapshotModel } from "../../sessions/stores/codec.ts";
import { type Book, type KnownSession, type OpenTurn, reconcile } from "./soak-book.ts";
import { type ColdReader, firstWrong } from "./soak-cold.ts";
import { ask, codeOf, type Reply } from "./soak-http.ts";
import type { SoakServer } from "./soak-server.ts";

/** What a server says that is about to end, or has just begun, or is full. */
const PATIENCE = new Set(["queue_full", "session_busy", "shutting_down", "not_ready", "response_busy"]);
const RETRY_MS = 100;
const MAX_TRIES = 300;

export class SoakWorld {
  readonly server: SoakServer;
  readonly book: Book;
  readonly #cold: ColdReader;
  readonly #model: SnapshotModel;
  #numActing = 0;
  #isHeld = false;
  #isOver = false;

  constructor(parts: {
    readonly server: SoakServer;
    readonly book: Book;
    readonly cold: ColdReader;
    readonly model: SnapshotModel;
  }) {
    this.server = parts.server;
    this.book = parts.book;
    this.#cold = parts.cold;
    this.#model = parts.model;
  }

  /** One user's life: acts again and again, unless all are held, until it is over. */
  async live(act: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      if (this.#isHeld) {
        await sleep(RETRY_MS);
        continue;
      }
      this.#numActing++;
      try {
        await act();
      } finally {
        this.#numActing--;
      }
    }
  }

  /** Nobody begins anything; resolves when everybody has ended what was begun. */
  async hold(): Promise<void> {
    this.#isHeld = true;
    while (this.#numActing > 0) await sleep(RETRY_MS);
  }

  release(): void {
    this.#isHeld = false;
  }

  end(): void {
    this.#isOver = true;
  }

  /**
   * Asks until there is an answer: a server that ends, starts or is full is asked again.
   * @returns a refusal for good too
   */
  async insist(method: string, path: string, body?: unknown): Promise<Reply> {
    for (let tries = 1; ; tries++) {
      const reply = await ask(method, (await this.server.url()) + path, body).catch(() => undefined);
      const isFinal = reply !== undefined && (reply.status < 400 || !PATIENCE.has(codeOf(reply)));
      if (isFinal) return reply;
      if (tries === MAX_TRIES) throw new Error(`${method} ${path} was not answered in ${MAX_TRIES} tries`);
      await sleep(RETRY_MS);
    }
  }

  /** The tokens of a session that nobody advances. undefined: there is no such session, or it cannot be read. */
  async keptIds(id: string): Promise<readonly number[] | undefined> {
    for (;;) {
      const session = await this.insist("GET", `/v1/sessions/${id}`);
      if (session.status !== 200) return undefined;
      const { busy } = JSON.parse(session.body.toString()) as { readonly busy: boolean };
      if (!busy) break;
      await sleep(RETRY_MS);
    }
    const file = await this.insist("GET", `/v1/sessions/${id}/export`);
    return file.status === 200 ? decodeSnapshot(file.body, this.#model).tokenIds : undefined;
  }

  /** What the server has, beside what was acknowledged. undefined: it is not that, and has been reported. */
  async recover(known: KnownSession, turn?: OpenTurn): Promise<KnownSession | undefined> {
    const keptIds = await this.keptIds(known.id);
    const found = keptIds === undefined ? `${known.id} is gone` : reconcile(known, keptIds, turn);
    if (typeof found !== "string") return found;
    this.book.report("lost state", found);
    return undefined;
  }

  /** Compares all answers with a cold run. */
  async verify({ id, tokenIds, answers }: KnownSession): Promise<void> {
    const at = await firstWrong(this.#cold, { tokenIds, answers });
    this.book.count(
      "tokens compared",
      answers.reduce((sum, { start, end }) => sum + end - start, 0),
    );
    if (at !== undefined) this.book.report("wrong continuation", `${id} at token ${at} of ${tokenIds.length}`);
  }
}
