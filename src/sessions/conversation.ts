/**
 * What the text layer keeps beside a state, and how a new prompt continues from it. A chat template renders a whole
 * conversation; the state has read its beginning; only what follows that beginning is new. Pure: no store, no engine.
 */
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { ChatMessage } from "./message-chain.ts";
import { addMessages, type MessageChain, messageChain, NO_MESSAGES, replaceLast } from "./message-chain.ts";
import { countPassageTokens, type Passage, passageList, type Stretch, textOf, toPassage } from "./message-spans.ts";
import { countTokens, type Tokens } from "./stores/past.ts";
import type { Snapshot } from "./stores/store.ts";
import { hashOf, type TextMark, textMark } from "./text-hash.ts";

const conversation = z.object({
  numPreambleTokens: z.int().min(0),
  passages: passageList,
  messages: messageChain,
  textLength: z.int().min(0),
  textHash: z.string(),
  tailUnder: z.string().optional(),
  numSampled: z.int().min(0).optional(),
  createdAtMs: z.number(),
  lastUsedAtMs: z.number(),
});

/**
 * JSON-serialisable: the `conversation` of a snapshot. Its mark is of exactly what the tokens behind the preamble say, as
 * it was rendered: the messages, rendered again, are compared with it.
 */
export interface Conversation extends TextMark {
  /** How many of the kept tokens stand before the first message: plain completions on the same session. */
  readonly numPreambleTokens: number;
  /** Those of the last messages that are not kept with the tokens before them; the last of them ends the conversation. */
  readonly passages: readonly Passage[];
  /** Of all messages, over the tokens behind the preamble. */
  readonly messages: MessageChain;
  /**
   * Where the template shows each message by itself, the mark is of what stands behind all messages but the last; this
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
  const [numSpokenOf, numTokens] = [countPassageTokens(passages), countTokens(snapshot)];
  if (numSpokenOf > snapshot.tokenIds.length || numPreambleTokens + numSpokenOf > numTokens) {
    throw new DenseMambaError(
      "invalid_snapshot",
      `the kept conversation claims ${numPreambleTokens + numSpokenOf} tokens; the snapshot holds ${numTokens}`,
    );
  }
  return head;
}

/** What of `rendered` follows the text that the kept tokens say. Undefined if it begins otherwise. */
export function newText(kept: TextMark, rendered: string): string | undefined {
  const isSame = rendered.length >= kept.textLength && hashOf(rendered.slice(0, kept.textLength)) === kept.textHash;
  return isSame ? rendered.slice(kept.textLength) : undefined;
}

/** A conversation whose answer is still to come. */
export type ConversationSoFar = { readonly type: "completion" } | ({ readonly type: "chat" } & ChatSoFar);

type ChatSoFar = Pick<Conversation, "numPreambleTokens"> &
  TextSoFar & {
    /** The kept conversation that is continued; undefined if everything before the answer was read again. */
    readonly kept: KeptMessages | undefined;
    /** The messages after those. */
    readonly added: readonly ChatMessage[];
    readonly continuesFinalMessage: boolean;
  };

/** What a turn needs to know of the messages of the conversation that it continues. */
export interface KeptMessages extends Pick<Conversation, "passages" | "messages"> {
  /** Where they end, counted from the very beginning. */
  readonly numTokens: number;
  /** The messages of the last passage. */
  readonly last: readonly ChatMessage[];
}

/** That of all tokens behind the preamble and before the answer; with `tailUnder` only its end, as in `Conversation`. */
export type TextSoFar = Pick<Conversation, "tailUnder"> & { readonly text: string };

export interface Answer extends Tokens {
  /** How many tokens, from the very beginning, stand before the answer. */
  readonly numPromptTokens: number;
  /** What the client was shown. */
  readonly shown: string;
}

/** After a completion everything so far is preamble: no template will ever render it. */
export function conclude(tokenizer: Pick<Tokenizer, "stream">, soFar: ConversationSoFar, answer: Answer) {
  if (soFar.type === "completion") {
    return { numPreambleTokens: countTokens(answer), passages: [], messages: NO_MESSAGES, ...textMark("") };
  }
  const { numPreambleTokens, text, tailUnder } = soFar;
  const stretch = stretchOf(answer, answer.numPromptTokens);
  // What the tokens of the answer say: stop strings and special tokens too.
  const said = textOf(tokenizer, stretch);
  return {
    numPreambleTokens,
    ...(soFar.continuesFinalMessage ? continued(tokenizer, soFar, answer) : answered(tokenizer, soFar, answer, said)),
    ...textMark(text + said),
    ...(tailUnder !== undefined && { tailUnder }),
  };
}

type Concluded = Pick<Conversation, "passages" | "messages">;

/** The messages that came with the request make one passage, the answer another. */
function answered(
  tokenizer: Pick<Tokenizer, "stream">,
  { numPreambleTokens, kept, added }: ChatSoFar,
  answer: Answer,
  said: string,
): Concluded {
  const { passages, messages, numTokens } = kept ?? nothingKept(numPreambleTokens);
  const prompt = stretchOf(answer, numTokens, answer.numPromptTokens);
  const isEmpty = prompt.begin === prompt.end && added.length === 0;
  const message = { role: "assistant", content: answer.shown };
  return {
    passages: [
      ...passages,
      ...(isEmpty ? [] : [toPassage(prompt, textOf(tokenizer, prompt), added)]),
      toPassage(stretchOf(answer, answer.numPromptTokens), said, [message]),
    ],
    messages: addMessages(messages, [...added, message]),
  };
}

/** The last message goes on in the answer: from where its passage begins, all is one. */
function continued(
  tokenizer: Pick<Tokenizer, "stream">,
  { numPreambleTokens, kept, added }: ChatSoFar,
  answer: Answer,
): Concluded {
  const { passages, messages, numTokens, last: lastKept } = kept ?? nothingKept(numPreambleTokens);
  const replacesKept = added.length === 0 && lastKept.length > 0;
  const before = replacesKept ? lastKept : added;
  const last = before.at(-1) ?? { role: "assistant", content: "" };
  const whole = [...before.slice(0, -1), { ...last, content: last.content + answer.shown }];
  const begin = replacesKept ? numTokens - passages.at(-1)!.numTokens : numTokens;
  const stretch = stretchOf(answer, begin);
  return {
    passages: [
      ...(replacesKept ? passages.slice(0, -1) : passages),
      toPassage(stretch, textOf(tokenizer, stretch), whole),
    ],
    messages: replacesKept ? replaceLast(messages, whole.at(-1)!) : addMessages(messages, whole),
  };
}

function nothingKept(numPreambleTokens: number): KeptMessages {
  return { passages: [], messages: NO_MESSAGES, numTokens: numPreambleTokens, last: [] };
}

/** Counted from the very beginning; in the result, from the first of the tokens that are at hand. */
function stretchOf(tokens: Tokens, begin: number, end = countTokens(tokens)): Stretch {
  const { tokenIds } = tokens;
  const numBefore = countTokens(tokens) - tokenIds.length;
  return { tokenIds, begin: begin - numBefore, end: end - numBefore };
}
