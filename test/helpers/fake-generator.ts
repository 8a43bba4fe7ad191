/**
 * A generator without a model, for tests of the server: every prompt is answered with the same
 * scripted tokens. As with the real engine, events are pushed into a queue, ahead of a slow
 * consumer until the queue is full. Prompts are tokenised by UTF-8 bytes; the reply's tokens have
 * ids from FIRST_REPLY_ID on.
 */

import { setImmediate as tick } from "node:timers/promises";
import { EventQueue } from "../../src/engine/event-queue.ts";
import { DenseMambaError } from "../../src/errors.ts";
import type {
  AcceptedPrompt,
  Embeddings,
  EmbedRequest,
  GenerationEvent,
  GenerationRequest,
  Prompt,
  PromptRequest,
  ScoredContinuations,
  ScoreRequest,
  TextLogprob,
  TokenDetail,
} from "../../src/generation/events.ts";
import { TextOffsets } from "../../src/generation/text-offsets.ts";
import type { ConversationDirectory, TextGenerator, TextTokenizer } from "../../src/server/deps.ts";
import { checkpointNotFound } from "../../src/sessions/checkpoints.ts";
import { type ConversationKey, notFound } from "../../src/sessions/conversation-store.ts";
import type { SessionInfo } from "../../src/sessions/conversations.ts";
import type { CheckpointInfo } from "../../src/sessions/session-checkpoints.ts";
import { incompleteTail } from "../../src/tokenizer/utf8.ts";

type FakeTokenizer = TextTokenizer & { tokenBytes(id: number): Uint8Array };

export const FIRST_REPLY_ID = 300;
export const FAKE_VOCAB_SIZE = 512;
export const FAKE_STATE_BYTES = 4096;
const EOS_ID = 0;

export interface Script {
  /** The texts of the reply's tokens. */
  reply: readonly string[];
  /** How many of them are reasoning. Default: the model has none. */
  readonly numReasoning?: number;
  /** Made behind the reply, if all of it is given. */
  readonly calls?: readonly { readonly name: string; readonly arguments: readonly string[] }[];
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

  generate(request: GenerationRequest): AsyncIterable<GenerationEvent> {
    return pushed(this.#events(request));
  }

  async encodePrompt({ prompts, addSpecialTokens, resumeFrom, owner }: PromptRequest): Promise<AcceptedPrompt> {
    const tokenIds = await this.#encode(prompts[0]!, addSpecialTokens);
    const cachedTokens = this.conversations.cachedTokens({ owner, ...(resumeFrom && { resumeFrom }) });
    return { numTokens: tokenIds.length + cachedTokens, tokenIds, cachedTokens };
  }

  /** Each character is as likely as any other. */
  async score(request: ScoreRequest): Promise<ScoredContinuations> {
    const prompt = await this.encodePrompt(request);
    const scores = request.continuations.map(({ text }) => ({ logprob: -text.length, numTokens: text.length }));
    return { prompt, scores };
  }

  /** The first prompt's vector is [1, 1, …], the second's [2, 1, …]. */
  async embed({ prompts, addSpecialTokens }: EmbedRequest): Promise<Embeddings> {
    const ids = await Promise.all(prompts.map((prompt) => this.#encode(prompt, addSpecialTokens)));
    const vectors = prompts.map((_, index) => new Float32Array(8).fill(1).fill(index + 1, 0, 1));
    return { numTokens: ids.flat().length, vectors };
  }

  async *#events(request: GenerationRequest): AsyncGenerator<GenerationEvent> {
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
    yield {
      type: "accepted",
      prompts: prompts.map((tokenIds) => ({ numTokens: tokenIds.length + cachedTokens, tokenIds, cachedTokens })),
    };

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
          ...(position < (script.numReasoning ?? 0) && { part: "reasoning" }),
          text: script.reply[position]!,
          tokenIds: [tokenId],
          ...(request.numLogprobs !== undefined && {
            logprobs: [this.#detail(tokenId, request.numLogprobs)],
            textOffsets: [[...script.reply.slice(0, position).join("")].length],
          }),
        };
      }
    }
    const isWhole = !request.signal.aborted && limit === script.reply.length;
    const calls = isWhole ? (script.calls ?? []) : [];
    for (const index of indexes) yield* calls.flatMap((call) => callEvents(index, call));
    const whole = calls.length > 0 ? "tool_calls" : "stop";
    const reason = request.signal.aborted ? "aborted" : isWhole ? whole : "length";
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
        ...(script.numReasoning !== undefined && { reasoningTokens: Math.min(limit, script.numReasoning) }),
        stateBytes: FAKE_STATE_BYTES,
        finishReasons: indexes.map(() => reason),
        ttftMs: 1.5,
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
    const stream = this.tokenizer.stream({ skipSpecialTokens: request.skipSpecialTokens });
    const offsets = new TextOffsets();
    let text = "";
    const textOffsets = tokenIds.map((id) => {
      const offset = offsets.next;
      const piece = stream.push(id);
      offsets.add(piece, stream);
      text += piece;
      return offset;
    });
    text += stream.flush();
    const logprobs = tokenIds.map((id, position) =>
      position === 0 ? null : this.#detail(id, k ?? 0, request.ranksPrompt),
    );
    return { type: "prompt", index, text, tokenIds, ...(k !== undefined && { logprobs, textOffsets }) };
  }

  /** Even ids are the likeliest at their place; before odd ones stands the id below. */
  #detail(tokenId: number, k: number, ranks = false): TokenDetail {
    const own = this.#entry(tokenId, tokenId % 2 === 0 ? -0.25 : -1.5);
    const likeliest = tokenId % 2 === 0 ? own : this.#entry(tokenId - 1, -0.25);
    const others = [this.#entry(65, -2.5), this.#entry(66, -3.5)];
    return { ...own, top: [likeliest, ...others].slice(0, k), ...(ranks && { rank: likeliest === own ? 1 : 2 }) };
  }

  #entry(tokenId: number, logprob: number): TextLogprob {
    const { tokenizer } = this;
    return { tokenId, text: tokenizer.tokenText(tokenId), bytes: tokenizer.tokenBytes(tokenId), logprob };
  }
}

function callEvents(
  index: number,
  { name, arguments: pieces }: NonNullable<Script["calls"]>[number],
): GenerationEvent[] {
  const delta = { type: "delta", index, part: "call", tokenIds: [] } as const;
  const begun = { ...delta, call: { id: `call_${name}`, name }, text: "" };
  return [begun, ...pieces.map((text) => ({ ...delta, text }))];
}

function pushed(events: AsyncIterable<GenerationEvent>): AsyncIterable<GenerationEvent> {
  let resume = () => {};
  const queue = new EventQueue<GenerationEvent>(
    () => resume(),
    () => resume(),
  );
  const pushAll = async () => {
    for await (const event of events) {
      queue.push(event);
      if (queue.isFull && !queue.isAbandoned) await new Promise<void>((resolve) => (resume = resolve));
      if (queue.isAbandoned) break;
    }
  };
  pushAll().then(
    () => queue.end(),
    (error: unknown) => queue.end({ error }),
  );
  return queue;
}

/** Sessions and responses as plain counters; an exported session is its counter as JSON. */
export class FakeConversations implements ConversationDirectory {
  readonly sessions = new Map<string, { numTokens: number; busy: boolean }>();
  readonly responses = new Map<string, { numTokens: number }>();
  readonly unstored = new Map<string, { numTokens: number }>();
  readonly records = new Map<string, string>();
  /** Thrown by the next `saveRecord`. */
  refusal: Error | undefined;

  async createSession(owner: string, id = `sess${this.sessions.size}`): Promise<SessionInfo> {
    return this.#add(owner, id, 0);
  }

  async listSessions(owner: string): Promise<SessionInfo[]> {
    const prefix = `${owner}:`;
    const ids = [...this.sessions.keys()].filter((key) => key.startsWith(prefix));
    return Promise.all(ids.map((key) => this.inspectSession(owner, key.slice(prefix.length))));
  }

  async inspectSession(owner: string, id: string): Promise<SessionInfo> {
    const { numTokens, busy } = this.#session(owner, id);
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

  async deleteSession(owner: string, id: string): Promise<void> {
    if (this.#session(owner, id).busy) throw sessionBusy(id);
    this.sessions.delete(keyOf(owner, id));
  }

  async forkSession(owner: string, id: string, newId = `sess${this.sessions.size}`): Promise<SessionInfo> {
    return this.#add(owner, newId, this.#session(owner, id).numTokens);
  }

  async forkResponse(owner: string, responseId: string, id = `sess${this.sessions.size}`): Promise<SessionInfo> {
    return this.#add(owner, id, this.#response(owner, responseId).numTokens);
  }

  /** There are no personas. */
  readonly personas = {
    list: async () => [],
    inspect: async (_owner: string, name: string): Promise<never> => {
      throw notFound({ type: "persona", id: name });
    },
    put: async (): Promise<never> => {
      throw new DenseMambaError("invalid_snapshot", "the fake reads no personas");
    },
    delete: async (_owner: string, name: string): Promise<void> => {
      throw notFound({ type: "persona", id: name });
    },
  };

  async forkPersona(_owner: string, persona: string): Promise<SessionInfo> {
    throw notFound({ type: "persona", id: persona });
  }

  async renameSession(owner: string, id: string, newId: string): Promise<SessionInfo> {
    const session = this.#session(owner, id);
    if (session.busy) throw sessionBusy(id);
    await this.#add(owner, newId, session.numTokens);
    this.sessions.delete(keyOf(owner, id));
    return this.inspectSession(owner, newId);
  }

  async exportSession(owner: string, id: string): Promise<Uint8Array> {
    return new TextEncoder().encode(JSON.stringify(this.#session(owner, id)));
  }

  async importSession(owner: string, bytes: Uint8Array, id = `sess${this.sessions.size}`): Promise<SessionInfo> {
    let numTokens: number;
    try {
      numTokens = (JSON.parse(new TextDecoder().decode(bytes)) as { numTokens: number }).numTokens;
    } catch (cause) {
      throw new DenseMambaError("invalid_snapshot", `${bytes.byteLength} bytes are no snapshot`, { cause });
    }
    return this.#add(owner, id, numTokens);
  }

  /** It has no checkpoints. */
  async listCheckpoints(owner: string, id: string): Promise<CheckpointInfo[]> {
    this.#session(owner, id);
    return [];
  }

  async nameCheckpoint(owner: string, id: string, name: string, which = name): Promise<CheckpointInfo> {
    this.#session(owner, id);
    throw checkpointNotFound(which);
  }

  async rollBackSession(owner: string, id: string, to: string): Promise<SessionInfo> {
    if (this.#session(owner, id).busy) throw sessionBusy(id);
    throw checkpointNotFound(to);
  }

  readonly #locked = new Set<string>();

  async lock(owner: string, id: string) {
    const key = keyOf(owner, id);
    if (this.#locked.has(key)) throw sessionBusy(id);
    this.#locked.add(key);
    return { release: async () => void this.#locked.delete(key) };
  }

  async saveRecord(owner: string, responseId: string, record: unknown): Promise<void> {
    if (this.refusal !== undefined) throw this.refusal;
    this.records.set(keyOf(owner, responseId), JSON.stringify(record));
  }

  async readRecord(owner: string, responseId: string): Promise<unknown> {
    const record = this.records.get(keyOf(owner, responseId));
    if (record === undefined) throw noResponse(responseId);
    return JSON.parse(record);
  }

  async deleteUnstored(owner: string, id: string): Promise<boolean> {
    return this.unstored.delete(keyOf(owner, id));
  }

  async deleteResponse(owner: string, id: string): Promise<void> {
    const hadState = this.responses.delete(keyOf(owner, id));
    if (!this.records.delete(keyOf(owner, id)) && !hadState) throw noResponse(id);
  }

  /** @throws what the real one throws for unknown and busy conversations; returns the release */
  open({ owner, resumeFrom }: GenerationRequest): () => void {
    if (resumeFrom === undefined) return () => {};
    if (resumeFrom.type !== "session") {
      if (!this.#kept(resumeFrom).has(keyOf(owner, resumeFrom.id))) throw noPreviousResponse(resumeFrom.id);
      return () => {};
    }
    const session = this.#session(owner, resumeFrom.id);
    if (session.busy) throw sessionBusy(resumeFrom.id);
    session.busy = true;
    return () => {
      session.busy = false;
    };
  }

  cachedTokens({ owner, resumeFrom }: Pick<GenerationRequest, "owner" | "resumeFrom">): number {
    if (resumeFrom === undefined) return 0;
    return this.#kept(resumeFrom).get(keyOf(owner, resumeFrom.id))?.numTokens ?? 0;
  }

  keep(request: GenerationRequest, numNewTokens: number): void {
    const { owner, saveAs } = request;
    if (saveAs === undefined) return;
    const numTokens = this.cachedTokens(request) + numNewTokens;
    if (saveAs.type === "session") this.#session(owner, saveAs.id).numTokens = numTokens;
    else this.#kept(saveAs).set(keyOf(owner, saveAs.id), { numTokens });
  }

  #kept({ type }: ConversationKey): Map<string, { numTokens: number }> {
    if (type === "unstored") return this.unstored;
    return type === "response" ? this.responses : (this.sessions as Map<string, { numTokens: number }>);
  }

  #add(owner: string, id: string, numTokens: number): Promise<SessionInfo> {
    if (this.sessions.has(keyOf(owner, id)))
      throw new DenseMambaError("session_exists", `session ${id} exists`, { param: "session_id" });
    this.sessions.set(keyOf(owner, id), { numTokens, busy: false });
    return this.inspectSession(owner, id);
  }

  #session(owner: string, id: string): { numTokens: number; busy: boolean } {
    const session = this.sessions.get(keyOf(owner, id));
    if (session === undefined)
      throw new DenseMambaError("session_not_found", `no session ${id}`, { param: "session_id" });
    return session;
  }

  #response(owner: string, id: string): { numTokens: number } {
    const response = this.responses.get(keyOf(owner, id));
    if (response === undefined) throw noPreviousResponse(id);
    return response;
  }
}

function noPreviousResponse(id: string): DenseMambaError {
  const details = { param: "previous_response_id" };
  return new DenseMambaError("previous_response_not_found", `previous response ${id} is not stored here`, details);
}

function keyOf(owner: string, id: string): string {
  return `${owner}:${id}`;
}

function sessionBusy(id: string): DenseMambaError {
  return new DenseMambaError("session_busy", `session ${id} is busy`, { param: "session_id" });
}

function noResponse(id: string): DenseMambaError {
  return new DenseMambaError("response_not_found", `response ${id} is not stored here`, { param: "response_id" });
}

function fakeTokenizer(replyText: (id: number) => string | undefined): FakeTokenizer {
  const bytesOf = (id: number) => (id < 256 ? Uint8Array.of(id) : new TextEncoder().encode(replyText(id) ?? ""));
  const textOf = (id: number) => Buffer.from(bytesOf(id)).toString("utf8");
  return {
    vocabSize: FAKE_VOCAB_SIZE,
    className: "FakeTokenizer",
    chatTemplate: "{{ messages }}",
    specialTokens: { eos_token: "<eos>" },
    encode: async (text, { addSpecialTokens }) => [
      ...(addSpecialTokens ? [EOS_ID] : []),
      ...new TextEncoder().encode(text),
    ],
    stream: ({ skipSpecialTokens }) => {
      let held = Buffer.alloc(0);
      return {
        get isOpen() {
          return held.length > 0;
        },
        push: (id) => {
          if (skipSpecialTokens && id === EOS_ID) return "";
          const bytes = Buffer.concat([held, bytesOf(id)]);
          const end = bytes.length - incompleteTail(bytes);
          held = bytes.subarray(end);
          return bytes.toString("utf8", 0, end);
        },
        flush: () => held.toString("utf8"),
      };
    },
    idToToken: (id) => (id < FAKE_VOCAB_SIZE ? textOf(id) : undefined),
    tokenText: textOf,
    tokenBytes: bytesOf,
  };
}
