/**
 * The messages of a conversation, as far as a turn has to know them: how many there are, and a hash that tells whether a
 * client sends all of them again. Each message is hashed once, when it comes, so that a turn does not look at them all. Pure.
 */
import * as z from "zod";
import { hashOf } from "./text-hash.ts";

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
}

export const messageChain = z.object({
  count: z.int().min(0),
  firstRole: z.string().optional(),
  hash: z.string().max(22),
  hashBeforeLast: z.string().max(22),
});

/** JSON-serialisable. */
export interface MessageChain {
  readonly count: number;
  /** Of the first message. */
  readonly firstRole?: string;
  /** Of all messages, in their order. */
  readonly hash: string;
  /** Of all but the last, which may be continued. */
  readonly hashBeforeLast: string;
}

export const NO_MESSAGES: MessageChain = { count: 0, hash: "", hashBeforeLast: "" };

export function addMessages(chain: MessageChain, messages: readonly ChatMessage[]): MessageChain {
  return messages.reduce(
    ({ count, firstRole, hash }, message) => ({
      count: count + 1,
      firstRole: firstRole ?? message.role,
      hash: hashBehind(hash, message),
      hashBeforeLast: hash,
    }),
    chain,
  );
}

/** @param chain of one message at least */
export function replaceLast(chain: MessageChain, last: ChatMessage): MessageChain {
  return { ...chain, hash: hashBehind(chain.hashBeforeLast, last) };
}

/**
 * The messages that follow the history. A client may send only what is new, or the whole conversation again: given
 * messages that begin with all of the history are taken as the latter.
 */
export function newMessages(history: MessageChain, given: readonly ChatMessage[]): readonly ChatMessage[] {
  const { count, firstRole, hash } = history;
  if (count === 0 || given.length < count || given[0]!.role !== firstRole) return given;
  return addMessages(NO_MESSAGES, given.slice(0, count)).hash === hash ? given.slice(count) : given;
}

/** Clients trim answers before they send them back, and templates trim them too. */
function hashBehind(previous: string, { role, name, content }: ChatMessage): string {
  return hashOf(JSON.stringify([previous, role, name ?? null, role === "assistant" ? content.trim() : content]));
}
