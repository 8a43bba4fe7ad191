/**
 * What the soak test's clients share: the server, the ledger, the cold run, and a barrier at which
 * all of them pause.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { streamRequest } from "../../src/bench/streams.ts";
import type { Engine } from "../../src/engine/engine.ts";
import type { ScoredToken } from "../../src/sampling/logprobs.ts";
import { decodeSnapshot, type SnapshotModel } from "../../src/sessions/stores/codec.ts";
import { ask, codeOf, type Reply } from "./http.ts";
import { type Answer, type KnownSession, type Ledger, type OpenTurn, reconcile } from "./ledger.ts";
import type { SoakServer } from "./server.ts";

/** What a server that ends, starts or is full answers: it is asked again. */
const TEMPORARY = new Set(["queue_full", "session_busy", "shutting_down", "not_ready", "response_busy"]);
const RETRY_MS = 100;
const MAX_TRIES = 300;

export interface SoakParts {
  readonly server: SoakServer;
  readonly ledger: Ledger;
  readonly coldRun: ColdRun;
  readonly model: SnapshotModel;
}

export class SoakFixture {
  readonly server: SoakServer;
  readonly ledger: Ledger;
  readonly #coldRun: ColdRun;
  readonly #model: SnapshotModel;
  #numActing = 0;
  #isPaused = false;
  #isOver = false;

  constructor({ server, ledger, coldRun, model }: SoakParts) {
    this.server = server;
    this.ledger = ledger;
    this.#coldRun = coldRun;
    this.#model = model;
  }

  /** One client: acts again and again, except during a pause, until the end. */
  async run(act: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      if (this.#isPaused) {
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

  /**
   * Runs `check` when every client has finished what it was doing, and none has begun anything
   * else.
   */
  async whilePaused(check: () => Promise<void>): Promise<void> {
    this.#isPaused = true;
    while (this.#numActing > 0) await sleep(RETRY_MS);
    await check();
    this.#isPaused = false;
  }

  end(): void {
    this.#isOver = true;
  }

  /** Asks until the server answers. @returns a permanent refusal too */
  async insist(method: string, path: string, body?: unknown): Promise<Reply> {
    for (let tries = 1; ; tries++) {
      const reply = await ask(method, (await this.server.url()) + path, body).catch(() => undefined);
      if (reply !== undefined && (reply.status < 400 || !TEMPORARY.has(codeOf(reply)))) return reply;
      if (tries === MAX_TRIES) throw new Error(`${method} ${path} was not answered in ${MAX_TRIES} tries`);
      await sleep(RETRY_MS);
    }
  }

  /**
   * The tokens of a session that nobody continues. undefined: it does not exist, or cannot be read.
   */
  async storedIds(id: string): Promise<readonly number[] | undefined> {
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

  /**
   * What the server has of a session whose last turn may have been cut off. undefined: that is
   * wrong, and was reported.
   */
  async recover(known: KnownSession, turn?: OpenTurn): Promise<KnownSession | undefined> {
    const storedIds = await this.storedIds(known.id);
    const found = storedIds === undefined ? `${known.id} is gone` : reconcile(known, storedIds, turn);
    if (typeof found !== "string") return found;
    this.ledger.report("lost state", found);
    return undefined;
  }

  /** Compares all answers with a cold run. */
  async verify({ id, tokenIds, answers }: KnownSession): Promise<void> {
    const at = await firstWrong(this.#coldRun, { tokenIds, answers });
    this.ledger.count(
      "tokens compared",
      answers.reduce((sum, { start, end }) => sum + end - start, 0),
    );
    if (at !== undefined) this.ledger.report("wrong continuation", `${id} at token ${at} of ${tokenIds.length}`);
  }
}

/** The same model in this process, which reads a whole conversation without interruption. */
export interface ColdRun {
  readonly engine: Pick<Engine, "submit">;
  /** Ids from here on are never sampled. */
  readonly vocabSize: number;
  /**
   * How much less likely than the likeliest a greedily chosen token may be: 0 where all runs give
   * the same bits.
   */
  readonly tolerance: number;
}

/** Padding of the model's vocabulary may be likelier than any token, and is never sampled. */
const NUM_CANDIDATES = 5;

/**
 * @returns the position of the first token that a greedy answer would not have; undefined if there
 * is none
 */
export async function firstWrong(
  { engine, vocabSize, tolerance }: ColdRun,
  { tokenIds, answers }: { readonly tokenIds: readonly number[]; readonly answers: readonly Answer[] },
): Promise<number | undefined> {
  if (answers.every(({ start, end }) => start >= end)) return undefined;
  const request = { ...streamRequest(tokenIds, 0), numPromptLogprobs: NUM_CANDIDATES };
  let scores: readonly (ScoredToken | null)[] = [];
  for await (const event of engine.submit([request])[0]!.events) {
    if (event.type === "prompt") scores = [...(event.logprobs ?? [])];
  }
  for (const { start, end } of answers) {
    for (let at = start; at < end; at++) {
      const scored = scores[at];
      const best = scored?.top.find(({ tokenId }) => tokenId < vocabSize);
      if (!scored || !best) return at;
      if (scored.tokenId !== best.tokenId && scored.logprob < best.logprob - tolerance) return at;
    }
  }
  return undefined;
}
