/**
 * What a request leaves behind: the snapshot of its conversation for the next request, kept once, whether its end was told or
 * the server interrupted it in the middle. Between the choice's tokens and `Conversations`; knows neither engine nor transport.
 */

import { buildConversation, type ConversationSnapshot } from "../sessions/conversation.ts";
import type { Lease } from "../sessions/conversations.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Choice } from "./choice.ts";
import type { GenerationRequest } from "./events.ts";
import { encodeBehind } from "./prompts.ts";

export interface KeepingContext {
  readonly tokenizer: Tokenizer;
  readonly modelHash: string;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
}

/** @param choice has ended, and its end was captured */
export async function toSnapshot(
  context: KeepingContext,
  request: GenerationRequest,
  choice: Choice,
  lease: Lease,
): Promise<ConversationSnapshot> {
  const { tokenizer, modelHash, nowMs } = context;
  const { history, tokenIds, position, state, sampler } = await choice.told((text) => encodeBehind(tokenizer, text));
  // Who names no seed wants other words each time, also when an answer is continued.
  const isSeeded = request.sampling.seed !== undefined && sampler !== undefined;
  const conversation = {
    ...buildConversation(tokenizer, choice.prompt.conversation, {
      ...(history && { history }),
      tokenIds,
      numPromptTokens: choice.prompt.numTokens,
      sentText: choice.text,
    }),
    ...(isSeeded && { numSampled: sampler.numSampled }),
    createdAtMs: lease.createdAtMs,
    lastUsedAtMs: Math.max(nowMs(), lease.lastUsedAtMs),
  };
  return {
    modelHash,
    ...(history && { history }),
    tokenIds,
    position,
    state,
    conversation,
    ...(isSeeded && { sampler: { seed: sampler.seed, numDraws: sampler.numDraws } }),
  };
}
