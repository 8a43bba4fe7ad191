/**
 * What a request leaves behind: the head of its conversation for the next request, kept once, whether its end was told or
 * the server parked it in the middle. Between the choice's tokens and `Conversations`; knows neither engine nor transport.
 */
import type { Snapshot } from "../session/store.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { Choice } from "./choice.ts";
import { conclude, type Head } from "./conversation.ts";
import type { Lease } from "./conversations.ts";
import type { GenerationRequest } from "./events.ts";
import type { PreparedPrompt } from "./prompts.ts";

export interface KeepingContext {
  readonly tokenizer: Tokenizer;
  readonly modelHash: string;
  /** Unix time in milliseconds. */
  readonly nowMs: () => number;
}

/** @param choice has ended, and its end was captured */
export function headOf(context: KeepingContext, request: GenerationRequest, choice: Choice, lease: Lease): Head {
  const { tokenizer, modelHash, nowMs } = context;
  const { tokenIds, position, state, sampler } = choice.captured();
  const prompt = request.prompts[0]!;
  // Who names no seed wants other words each time, also when an answer is gone on with.
  const isSeeded = request.sampling.seed !== undefined && sampler !== undefined;
  const conversation = {
    ...conclude(choice.prompt.conversation, {
      tokenIds,
      shown: choice.text,
      kept: prompt.type === "chat" ? textBehind(tokenizer, choice.prompt, tokenIds) : "",
      continuesFinalMessage: prompt.type === "chat" && prompt.continueFinalMessage,
    }),
    ...(isSeeded && { numSampled: sampler.numSampled }),
    createdAtMs: lease.createdAtMs,
    lastUsedAtMs: Math.max(nowMs(), lease.lastUsedAtMs),
  };
  const snapshot: Snapshot = {
    modelHash,
    tokenIds,
    position,
    state,
    conversation,
    ...(isSeeded && { sampler: { seed: sampler.seed, numDraws: sampler.numDraws } }),
  };
  return { snapshot, conversation };
}

/** What the tokens say behind the prompt that they begin with, special tokens included. */
function textBehind(
  tokenizer: Tokenizer,
  { contextIds, numTokens }: PreparedPrompt,
  tokenIds: readonly number[],
): string {
  const stream = tokenizer.stream({ skipSpecialTokens: false, contextIds });
  let text = "";
  for (let i = numTokens; i < tokenIds.length; i++) text += stream.push(tokenIds[i]!);
  return text + stream.flush();
}
