/**
 * What the text layer keeps beside a state, and how a new prompt goes on from it. A chat template renders a whole
 * conversation; the state has read its beginning; only what follows that beginning is new. Pure: no store, no engine.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";
import type { Snapshot } from "../session/store.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ChatMessage } from "./events.ts";
import { countMessages, countTokens, type Passage, passageList, textOf, toPassage } from "./passages.ts";

const conversation = z.object({
  numPreambleTokens: z.int().min(0),
  passages: passageList,
  textLength: z.int().min(0),
  textHash: z.string(),
  tailUnder: z.string().optional(),
  numSampled: z.int().min(0).optional(),
  createdAtMs: z.number(),
  lastUsedAtMs: z.number(),
});

/** JSON-serialisable: the `conversation` of a snapshot. */
export interface Conversation {
  /** How many of the kept tokens stand before the first message: plain completions on the same session. */
  readonly numPreambleTokens: number;
  /** The messages, over the tokens behind the preamble. */
  readonly passages: readonly Passage[];
  /** Of exactly what those tokens say, as it was rendered: the messages, rendered again, are compared with it. */
  readonly textLength: number;
  readonly textHash: string;
  /**
   * Where the template shows each message by itself, the two are of what stands behind all messages but the last; this
   * names all else that decides the text: the template, its arguments, the instructions.
   */
  readonly tailUnder?: string;
  /** How many of the last kept tokens the last request sampled, where it had a seed. */
  readonly numSampled?: number;
  readonly createdAtMs: number;
  readonly lastUsedAtMs: number;
}

/** A kept conversation with its state. */
export interface Head {
  readonly snapshot: Snapshot;
  readonly conversation: Conversation;
}

/** @throws `invalid_snapshot` if the snapshot was not kept by this layer, contradicts itself or belongs to another model. */
export function openHead(snapshot: Snapshot, modelHash: string): Head {
  if (snapshot.modelHash !== modelHash) {
    throw new DenseMambaError(
      "invalid_snapshot",
      `the conversation was kept under model ${snapshot.modelHash}; this server runs ${modelHash}`,
    );
  }
  const parsed = conversation.safeParse(snapshot.conversation);
  if (!parsed.success) {
    throw new DenseMambaError("invalid_snapshot", `the kept conversation is malformed: ${parsed.error.message}`, {
      cause: parsed.error,
    });
  }
  const head = { snapshot, conversation: parsed.data as Conversation };
  const { numPreambleTokens, passages } = head.conversation;
  const numTokens = numPreambleTokens + countTokens(passages);
  if (numTokens > snapshot.tokenIds.length) {
    throw new DenseMambaError(
      "invalid_snapshot",
      `the kept conversation speaks of ${numTokens} tokens; the snapshot holds ${snapshot.tokenIds.length}`,
    );
  }
  return head;
}

/**
 * The messages that follow the history. A client may send only what is new, or the whole conversation again: given
 * messages that begin with all of the history are taken as the latter.
 */
export function newMessages(history: readonly ChatMessage[], given: readonly ChatMessage[]): readonly ChatMessage[] {
  const repeats = given.length >= history.length && history.every((message, i) => isSame(message, given[i]!));
  return repeats ? given.slice(history.length) : given;
}

/** What of `rendered` follows the text that the kept tokens say. Undefined if it begins otherwise. */
export function newText(kept: Pick<Conversation, "textLength" | "textHash">, rendered: string): string | undefined {
  const isSame = rendered.length >= kept.textLength && hashOf(rendered.slice(0, kept.textLength)) === kept.textHash;
  return isSame ? rendered.slice(kept.textLength) : undefined;
}

/** A conversation whose answer is still to come. */
export type ConversationSoFar = { readonly type: "completion" } | ({ readonly type: "chat" } & ChatSoFar);

type ChatSoFar = Pick<Conversation, "numPreambleTokens"> &
  TextSoFar & {
    /** All of them. */
    readonly messages: readonly ChatMessage[];
    /** Those of the conversation that is gone on with: of the first messages and tokens. */
    readonly passages: readonly Passage[];
    readonly continuesFinalMessage: boolean;
  };

/** That of all tokens behind the preamble and before the answer; with `tailUnder` only its end, as in `Conversation`. */
export type TextSoFar = Pick<Conversation, "tailUnder"> & { readonly text: string };

export interface Answer {
  /** All tokens that are kept, from the very beginning to the end of the answer. */
  readonly tokenIds: readonly number[];
  /** How many of them stand before the answer. */
  readonly numPromptTokens: number;
  /** What the client was shown. */
  readonly shown: string;
}

/** After a completion everything so far is preamble: no template will ever render it. */
export function conclude(tokenizer: Pick<Tokenizer, "stream">, soFar: ConversationSoFar, answer: Answer) {
  const { tokenIds, numPromptTokens, shown } = answer;
  if (soFar.type === "completion") return { numPreambleTokens: tokenIds.length, passages: [], ...textMark("") };
  const { numPreambleTokens, text, tailUnder } = soFar;
  const stretch = { tokenIds, begin: numPromptTokens, end: tokenIds.length };
  // What the tokens of the answer say: stop strings and special tokens too.
  const said = textOf(tokenizer, stretch);
  const passages = soFar.continuesFinalMessage
    ? continued(tokenizer, soFar, answer)
    : [
        ...soFar.passages,
        ...promptPassages(tokenizer, soFar, answer),
        toPassage(stretch, said, [{ role: "assistant", content: shown }]),
      ];
  return {
    numPreambleTokens,
    passages,
    ...textMark(text + said),
    ...(tailUnder !== undefined && { tailUnder }),
  };
}

/** What is kept of a conversation's text. */
export function textMark(text: string): Pick<Conversation, "textLength" | "textHash"> {
  return { textLength: text.length, textHash: hashOf(text) };
}

/** 128 bits: nobody can make two texts that pass for one another. */
export function hashOf(text: string): string {
  return createHash("sha256").update(text).digest("base64url").slice(0, 22);
}

/** The messages that came with the request. */
function promptPassages(
  tokenizer: Pick<Tokenizer, "stream">,
  { numPreambleTokens, passages, messages }: ChatSoFar,
  { tokenIds, numPromptTokens }: Answer,
): readonly Passage[] {
  const stretch = { tokenIds, begin: numPreambleTokens + countTokens(passages), end: numPromptTokens };
  const added = messages.slice(countMessages(passages));
  if (stretch.begin === stretch.end && added.length === 0) return [];
  return [toPassage(stretch, textOf(tokenizer, stretch), added)];
}

/** The last message goes on in the answer: from where its passage begins, all is one. */
function continued(
  tokenizer: Pick<Tokenizer, "stream">,
  { numPreambleTokens, passages, messages }: ChatSoFar,
  { tokenIds, shown }: Answer,
): readonly Passage[] {
  const last = messages.at(-1) ?? { role: "assistant", content: "" };
  const whole = [...messages.slice(0, -1), { ...last, content: last.content + shown }];
  let numBefore = passages.length;
  while (countMessages(passages.slice(0, numBefore)) >= whole.length) numBefore--;
  const before = passages.slice(0, numBefore);
  const stretch = { tokenIds, begin: numPreambleTokens + countTokens(before), end: tokenIds.length };
  return [...before, toPassage(stretch, textOf(tokenizer, stretch), whole.slice(countMessages(before)))];
}

/** Clients trim answers before they send them back, and templates trim them too. */
function isSame(kept: ChatMessage, given: ChatMessage): boolean {
  if (kept.role !== given.role || kept.name !== given.name) return false;
  return kept.content === given.content || (kept.role === "assistant" && kept.content.trim() === given.content.trim());
}
