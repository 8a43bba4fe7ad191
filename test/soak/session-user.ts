/**
 * One of the soak test's clients over HTTP: at random it continues sessions of its own, leaves in
 * the middle of an answer, forks (also while a session answers), deletes, and asks without a
 * session with prompts that begin alike.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { randomPrompt } from "../../src/bench/random-model.ts";
import { SeededRandom } from "../../src/sampling/random.ts";
import type { SoakFixture } from "./fixture.ts";
import { type StreamOutcome, streamTokens } from "./http.ts";
import { afterTurn, type KnownSession } from "./ledger.ts";

const MAX_SESSIONS = 6;
const MAX_SESSION_TOKENS = 500;
const MAX_PROMPT_TOKENS = 60;
const MAX_ANSWER_TOKENS = 60;
/** What many prompts without a session begin with. */
const COMMON_TOKENS = 150;
const REFUSALS = new Set(["queue_full", "session_busy", "shutting_down", "not_ready"]);

export class SessionUser {
  readonly #soak: SoakFixture;
  readonly #name: string;
  readonly #random: SeededRandom;
  readonly #sessions: KnownSession[] = [];
  #numNames = 0;

  constructor(soak: SoakFixture, name: string, seed: number) {
    this.#soak = soak;
    this.#name = name;
    this.#random = new SeededRandom(seed);
  }

  async act(): Promise<void> {
    const dice = this.#random.next();
    if (this.#sessions.length === 0 || (dice < 0.1 && this.#sessions.length < MAX_SESSIONS)) return this.#begin();
    const session = this.#sessions[this.#below(this.#sessions.length)]!;
    if (session.tokenIds.length > MAX_SESSION_TOKENS) return this.#retire(session);
    if (dice < 0.2) return this.#ask();
    if (dice < 0.35 && this.#sessions.length < MAX_SESSIONS) return this.#fork(session);
    if (dice < 0.4) return this.#retire(session);
    await this.#turn(session);
  }

  /** Compares all remaining sessions with cold runs, and deletes them. */
  async finish(): Promise<void> {
    for (const session of [...this.#sessions]) await this.#retire(session);
  }

  async #begin(): Promise<void> {
    const id = this.#newName();
    const { status } = await this.#soak.insist("POST", "/v1/sessions", { session_id: id });
    // 409: it was created, but the answer did not arrive, and this is the second try.
    if (status === 201 || status === 409) this.#sessions.push({ id, tokenIds: [], answers: [] });
    else this.#soak.ledger.report("unexpected refusal", `POST /v1/sessions: ${status}`);
  }

  async #turn(known: KnownSession): Promise<StreamOutcome> {
    const { server, ledger } = this.#soak;
    const mayAddNothing = known.answers.length > 0 && known.answers.at(-1)!.end === known.tokenIds.length;
    const numNew = mayAddNothing && this.#random.next() < 0.15 ? 0 : 1 + this.#below(MAX_PROMPT_TOKENS);
    const promptIds = randomPrompt(numNew, this.#below(2 ** 31));
    const maxTokens = 1 + this.#below(MAX_ANSWER_TOKENS);
    const leaves = this.#random.next() < 0.15;
    const url = await server.url();
    const life = server.life;
    const outcome = await streamTokens(
      url,
      {
        session_id: known.id,
        prompt: numNew === 0 ? "" : promptIds,
        max_tokens: maxTokens,
        temperature: 0,
        ignore_eos: true,
      },
      leaves ? { leaveAfter: 1 + this.#below(maxTokens) } : {},
    );
    this.#checkEnd(outcome, { life, maxTokens, what: known.id });
    const { tokenIds: seenIds, end } = outcome;
    if (end.type === "refused") {
      if (end.code === "session_not_found") ledger.report("lost state", `${known.id} is unknown`);
      await sleep(50);
    } else if (end.type === "finished") {
      this.#replace(known, afterTurn(known, promptIds, seenIds));
    } else {
      this.#replace(known, await this.#soak.recover(known, { promptIds, seenIds, maxTokens }));
    }
    return outcome;
  }

  /** Half of the time while the session answers. */
  async #fork(known: KnownSession): Promise<void> {
    const id = this.#newName();
    const isBusy = this.#random.next() < 0.5;
    const turn = isBusy ? this.#turn(known) : undefined;
    if (isBusy) await sleep(this.#below(30));
    const { status } = await this.#soak.insist("POST", `/v1/sessions/${known.id}/fork`, { session_id: id });
    await turn;
    this.#soak.ledger.count(isBusy ? "forks of an answering session" : "forks");
    if (status !== 201 && status !== 409) {
      this.#soak.ledger.report("unexpected refusal", `fork of ${known.id}: ${status}`);
      return;
    }
    // The session as it was before the turn, or after it.
    const now = this.#sessions.find((session) => session.id === known.id) ?? known;
    const storedIds = await this.#soak.storedIds(id);
    const origin = storedIds?.length === now.tokenIds.length ? now : known;
    const forked = await this.#soak.recover({ ...origin, id });
    if (forked) this.#sessions.push(forked);
  }

  /** Without a session, with a beginning that other prompts share. */
  async #ask(): Promise<void> {
    const { server } = this.#soak;
    const promptIds = [
      ...randomPrompt(COMMON_TOKENS, this.#below(3)),
      ...randomPrompt(1 + this.#below(MAX_PROMPT_TOKENS), this.#below(2 ** 31)),
    ];
    const maxTokens = 1 + this.#below(MAX_ANSWER_TOKENS);
    const url = await server.url();
    const life = server.life;
    const body = { prompt: promptIds, max_tokens: maxTokens, temperature: 0, ignore_eos: true };
    const outcome = await streamTokens(url, body);
    this.#checkEnd(outcome, { life, maxTokens, what: "a prompt" });
    const answered = afterTurn({ id: "a prompt", tokenIds: [], answers: [] }, promptIds, outcome.tokenIds);
    await this.#soak.verify(answered);
  }

  async #retire(known: KnownSession): Promise<void> {
    this.#replace(known, undefined);
    const found = await this.#soak.recover(known);
    if (found === undefined) return;
    await this.#soak.verify(found);
    const { status } = await this.#soak.insist("DELETE", `/v1/sessions/${known.id}`);
    // 404: it was deleted, but the answer did not arrive.
    if (status === 200 || status === 404) this.#soak.ledger.count("sessions verified and deleted");
    else this.#soak.ledger.report("unexpected refusal", `DELETE ${known.id}: ${status}`);
  }

  #checkEnd(
    { tokenIds, end }: StreamOutcome,
    { life, maxTokens, what }: { readonly life: number; readonly maxTokens: number; readonly what: string },
  ): void {
    const { ledger, server } = this.#soak;
    ledger.count(end.type === "refused" ? `refused: ${end.code}` : `streams ${end.type}`);
    const mayHaveEnded = server.mayHaveEnded(life);
    if (end.type === "wrong") ledger.report("wrong end", `${what}: ${end.what}`);
    if (end.type === "finished" && tokenIds.length !== maxTokens) {
      ledger.report("wrong end", `${what}: ${tokenIds.length} tokens instead of ${maxTokens}`);
    }
    // A server that shuts down in order tells its streams.
    const mayBreak = end.type === "broken" && (end.wasAccepted ? server.wasKilled(life) : mayHaveEnded);
    if (end.type === "broken" && !mayBreak) {
      ledger.report("wrong end", `${what}: broken by a server that ${mayHaveEnded ? "ended in order" : "is running"}`);
    }
    if (end.type === "failed" && !(mayHaveEnded && end.code === "shutting_down")) {
      ledger.report("wrong end", `${what}: ${end.code}`);
    }
    if (end.type === "refused" && !REFUSALS.has(end.code)) ledger.report("unexpected refusal", `${what}: ${end.code}`);
  }

  #replace(known: KnownSession, now: KnownSession | undefined): void {
    const at = this.#sessions.findIndex(({ id }) => id === known.id);
    if (at !== -1) this.#sessions.splice(at, 1, ...(now ? [now] : []));
  }

  #newName(): string {
    return `${this.#name}-${this.#numNames++}`;
  }

  #below(bound: number): number {
    return Math.floor(this.#random.next() * bound);
  }
}
