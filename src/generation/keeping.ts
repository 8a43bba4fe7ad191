/**
 * What a request leaves behind: the head of its conversation for the next request, kept once, whether its end was told or
 * the server interrupted it in the middle. Between the choice's tokens and `Conversations`; knows neither engine nor transport.
 */

import { conclude, type Head } from "../sessions/conversation.ts";
import type { Lease } from "../sessions/conversations.ts";
import type { Snapshot } from "../sessions/stores/store.ts";
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
export async function headOf(
  context: KeepingContext,
  request: GenerationRequest,
  choice: Choice,
  lease: Lease,
): Promise<Head> {
  const { tokenizer, modelHash, nowMs } = context;
  const { past, tokenIds, position, state, sampler } = await choice.told((text) => encodeBehind(tokenizer, text));
  // Who names no seed wants other words each time, also when an answer is continued.
  const isSeeded = request.sampling.seed !== undefined && sampler !== undefined;
  const conversation = {
    ...conclude(tokenizer, choice.prompt.conversation, {
      ...(past && { past }),
      tokenIds,
      numPromptTokens: choice.prompt.numTokens,
      shown: choice.text,
    }),
    ...(isSeeded && { numSampled: sampler.numSampled }),
    createdAtMs: lease.createdAtMs,
    lastUsedAtMs: Math.max(nowMs(), lease.lastUsedAtMs),
  };
  const snapshot: Snapshot = {
    modelHash,
    ...(past && { past }),
    tokenIds,
    position,
    state,
    conversation,
    ...(isSeeded && { sampler: { seed: sampler.seed, numDraws: sampler.numDraws } }),
  };
  return { snapshot, conversation };
}
