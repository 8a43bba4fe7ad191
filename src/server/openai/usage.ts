/** Token counts on the wire. `state_bytes` is ours: what this conversation's whole past occupies, however long it is. */
import type { GenerationUsage } from "../../generation/events.ts";

export function toUsage(usage: GenerationUsage) {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
    state_bytes: usage.stateBytes,
  };
}

export function toResponseUsage(usage: GenerationUsage) {
  return {
    input_tokens: usage.promptTokens,
    // What is read is kept at no charge: nothing is counted as written to a cache.
    input_tokens_details: { cached_tokens: usage.cachedTokens, cache_write_tokens: 0 },
    output_tokens: usage.completionTokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens: usage.promptTokens + usage.completionTokens,
    state_bytes: usage.stateBytes,
  };
}
