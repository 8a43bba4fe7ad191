/**
 * A generator without a model, for tests of the server: every prompt is answered with the same scripted tokens. Prompts are
 * tokenised by UTF-8 bytes; the reply's tokens have ids from FIRST_REPLY_ID on.
 */
import { setImmediate as tick } from "node:timers/promises";
import { DenseMambaError } from "../../src/errors.ts";
import type { SessionInfo } from "../../src/generation/conversations.ts";
import type {
  GenerationEvent,
  GenerationRequest,
  Prompt,
  TextLogprob,
  TokenDetail,
} from "../../src/generation/events.ts";
import type { ConversationDirectory, TextGenerator, TextTokenizer } from "../../src/server/deps.ts";

type FakeTokenizer = TextTokenizer & { tokenBytes(id: number): Uint8Array };

export const FIRST_REPLY_ID = 300;
export const FAKE_VOCAB_SIZE = 512;
export const FAKE_STATE_BYTES = 4096;
const EOS_ID = 0;

export interface Script {
  /** The texts of the reply's tokens. */
  reply: readonly string[];
  /** Thrown before the first event. */
  readonly refusal?: Error | undefined;
  /** Thrown after so many deltas. */
  failure?: { readonly afterDeltas: number; readonly error: Error };
  /** Waits here before each delta; the default yields to the event loop. */
  pace?: (deltaIndex: number, signal: AbortSignal) => Promise<void>;
}

export class FakeGenerator implements TextGenerator {
  readonly tokenizer: FakeTokenizer;
  readonly conversations: FakeConversations;
  readonly requests: GenerationRequest[] = [];
  script: Script = { reply: ["Once", " upon", " a", " time"] };
  /** Generations that have begun and not ended. */
  numRunning = 0;
  /** Generations that ended because their signal was aborted. */
  numAborted = 0;

  constructor({ conversations = new FakeConversations() }: { conversations?: FakeConversations } = {}) {
    this.conversations = conversations;
    this.tokenizer = fakeTokenizer((id) => this.script.reply[id - FIRST_REPLY_ID]);
  }

  async *generate(request: GenerationRequest): AsyncGenerator<GenerationEvent> {
    this.requests.push(request);
    const script = this.script;
    const { refusal } = script;
    if (refusal) throw refusal;
    const release = this.conversations.open(request);
    this.numRunning++;
    try {
      yield* this.#run(request, script);
    } finally {
      this.numRunning--;
      if (request.signal.aborted) this.numAborted++;
      release();
    }
  }

  async *#run(request: GenerationRequest, script: Script): AsyncGenerator<GenerationEvent> {
    const prompts = await Promise.all(request.prompts.map((prompt) => this.#encode(prompt, request.addSpecialTokens)));
    const cachedTokens = this.conversations.cachedTokens(request);
    yield { type: "accepted", prompts: prompts.map((tokenIds) => ({ tokenIds, cachedTokens })) };

    const indexes = [...Array(prompts.length * request.numChoices).keys()];
    const promptOf = (index: number) => prompts[Math.floor(index / request.numChoices)]!;
    if (request.echo || request.numPromptLogprobs !== undefined) {
      for (const index of indexes) yield this.#promptEvent(index, promptOf(index), request);
    }
    const limit = Math.min(script.reply.length, request.maxTokens ?? Number.POSITIVE_INFINITY);
    let numDeltas = 0;
    for (let position = 0; position < limit; position++) {
      await (script.pace?.(position, request.signal) ?? tick());
      if (request.signal.aborted) break;
      for (const index of indexes) {
        if (script.failure && numDeltas >= script.failure.afterDeltas) throw script.failure.error;
        numDeltas++;
        const tokenId = FIRST_REPLY_ID + position;
        yield {
          type: "delta",
          index,
          text: script.reply[position]!,
          tokenIds: [tokenId],
          ...(request.numLogprobs === undefined ? {} : { logprobs: [this.#detail(tokenId, request.numLogprobs)] }),
        };
      }
    }
    const reason = request.signal.aborted ? "aborted" : limit < script.reply.length ? "length" : "stop";
    for (const index of indexes) yield { type: "finished", index, reason };
    const promptTokens = prompts.reduce((sum, ids) => sum + ids.length, 0);
    const completionTokens = numDeltas;
    if (reason !== "aborted") this.conversations.keep(request, promptTokens + completionTokens);
    yield {
      type: "usage",
      usage: {
        promptTokens: promptTokens + cachedTokens,
        cachedTokens,
        completionTokens,
        stateBytes: FAKE_STATE_BYTES,
      },
    };
  }

  async #encode(prompt: Prompt, addSpecialTokens: boolean): Promise<readonly number[]> {
    switch (prompt.type) {
      case "tokens":
        return prompt.tokenIds;
      case "text":
        return this.tokenizer.encode(prompt.text, { addSpecialTokens });
      case "chat": {
        const text = prompt.messages.map(({ role, content }) => `${role}: ${content}\n`).join("");
        return this.tokenizer.encode((prompt.instructions ?? "") + text, { addSpecialTokens });
      }
    }
  }

  #promptEvent(index: number, tokenIds: readonly number[], request: GenerationRequest): GenerationEvent {
    const k = request.numPromptLogprobs;
    const text = this.tokenizer.decode(tokenIds, { skipSpecialTokens: request.skipSpecialTokens });
    const logprobs = tokenIds.map((id, position) => (position === 0 ? null : this.#detail(id, k ?? 0)));
    return { type: "prompt", index, text, tokenIds, ...(k === undefined ? {} : { logprobs }) };
  }

  /** Even ids are the likeliest at their place; before odd ones stands the id below. */
  #detail(tokenId: number, k: number): TokenDetail {
    const own = this.#entry(tokenId, tokenId % 2 === 0 ? -0.25 : -1.5);
    const likeliest = tokenId % 2 === 0 ? own : this.#entry(tokenId - 1, -0.25);
    const others = [this.#entry(65, -2.5), this.#entry(66, -3.5)];
    return { ...own, top: [likeliest, ...others].slice(0, k) };
  }

  #entry(tokenId: number, logprob: number): TextLogprob {
    const { tokenizer } = this;
    return { tokenId, text: tokenizer.tokenText(tokenId), bytes: tokenizer.tokenBytes(tokenId), logprob };
  }
}

/** Sessions and responses as plain counters. */
export class FakeConversations implements ConversationDirectory {
  readonly sessions = new Map<string, { numTokens: number; busy: boolean }>();
  readonly responses = new Map<string, { numTokens: number }>();

  async createSession(id = `sess${this.sessions.size}`): Promise<SessionInfo> {
    if (this.sessions.has(id))
      throw new DenseMambaError("session_exists", `session ${id} exists`, { param: "session_id" });
    this.sessions.set(id, { numTokens: 0, busy: false });
    return this.inspectSession(id);
  }

  async listSessions(): Promise<readonly SessionInfo[]> {
    return Promise.all([...this.sessions.keys()].map((id) => this.inspectSession(id)));
  }

  async inspectSession(id: string): Promise<SessionInfo> {
    const { numTokens, busy } = this.#session(id);
    return {
      id,
      numTokens,
      position: numTokens,
      stateBytes: FAKE_STATE_BYTES,
      createdAtMs: 1000,
      lastUsedAtMs: 2000,
      busy,
    };
  }

  async deleteSession(id: string): Promise<void> {
    this.#session(id);
    this.sessions.delete(id);
  }

  async deleteResponse(id: string): Promise<void> {
    if (!this.responses.delete(id)) throw new DenseMambaError("response_not_found", `response ${id} is not kept`);
  }

  /** @throws what the real one throws for unknown and busy conversations; returns the release */
  open({ resumeFrom }: GenerationRequest): () => void {
    if (resumeFrom?.type === "response" && !this.responses.has(resumeFrom.id)) {
      const details = { param: "previous_response_id" };
      throw new DenseMambaError("previous_response_not_found", `response ${resumeFrom.id} is not kept`, details);
    }
    if (resumeFrom?.type !== "session") return () => {};
    const session = this.#session(resumeFrom.id);
    if (session.busy)
      throw new DenseMambaError("session_busy", `session ${resumeFrom.id} is busy`, { param: "session_id" });
    session.busy = true;
    return () => {
      session.busy = false;
    };
  }

  cachedTokens({ resumeFrom }: GenerationRequest): number {
    if (resumeFrom === undefined) return 0;
    return (resumeFrom.type === "session" ? this.sessions : this.responses).get(resumeFrom.id)?.numTokens ?? 0;
  }

  keep({ keepAs, resumeFrom }: GenerationRequest, numNewTokens: number): void {
    if (keepAs === undefined) return;
    const before = resumeFrom
      ? ((resumeFrom.type === "session" ? this.sessions : this.responses).get(resumeFrom.id)?.numTokens ?? 0)
      : 0;
    const numTokens = before + numNewTokens;
    if (keepAs.type === "response") this.responses.set(keepAs.id, { numTokens });
    else this.#session(keepAs.id).numTokens = numTokens;
  }

  #session(id: string): { numTokens: number; busy: boolean } {
    const session = this.sessions.get(id);
    if (session === undefined)
      throw new DenseMambaError("session_not_found", `no session ${id}`, { param: "session_id" });
    return session;
  }
}

function fakeTokenizer(replyText: (id: number) => string | undefined): FakeTokenizer {
  const bytesOf = (id: number) => (id < 256 ? Uint8Array.of(id) : new TextEncoder().encode(replyText(id) ?? ""));
  const decode = (ids: readonly number[], skipSpecial: boolean) => {
    const kept = skipSpecial ? ids.filter((id) => id !== EOS_ID) : ids;
    return Buffer.concat(kept.map(bytesOf)).toString("utf8");
  };
  return {
    vocabSize: FAKE_VOCAB_SIZE,
    chatTemplate: "{{ messages }}",
    specialTokens: { eos_token: "<eos>" },
    encode: async (text, { addSpecialTokens }) => [
      ...(addSpecialTokens ? [EOS_ID] : []),
      ...new TextEncoder().encode(text),
    ],
    decode: (ids, { skipSpecialTokens }) => decode(ids, skipSpecialTokens),
    idToToken: (id) => (id < FAKE_VOCAB_SIZE ? decode([id], false) : undefined),
    tokenText: (id) => decode([id], false),
    tokenBytes: bytesOf,
  };
}
