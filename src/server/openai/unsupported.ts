/**
 * Fields of OpenAI's, vLLM's, llama.cpp's and their clients' requests that would change the answer and are not implemented
 * here. They are refused, never ignored, unless they hold the value that changes nothing: many clients send all they know.
 */
import { isRecord, unsupportedUnless } from "./validate.ts";

const CONSTRAINED = "output can't be constrained to a grammar or schema here";
const OTHER_SAMPLING = "it is not among this server's ways to sample";
const OTHER_PENALTY = "use repetition_penalty, presence_penalty or frequency_penalty";
const NO_TOOLS = "this model calls no tools";
const TEXT_ONLY = "this model writes text only";

const NO_ITEMS = [[]];

/** Field → the values that change nothing, and what to say of any other. */
type Refused = Readonly<Record<string, readonly [neutral: readonly unknown[], reason: string]>>;

/** On every generating endpoint. */
const EVERYWHERE = {
  grammar: [[""], CONSTRAINED],
  guided_json: [[], CONSTRAINED],
  guided_regex: [[""], CONSTRAINED],
  guided_choice: [NO_ITEMS, CONSTRAINED],
  guided_grammar: [[""], CONSTRAINED],
  structured_outputs: [[], CONSTRAINED],
  structural_tag: [[""], CONSTRAINED],
  json_schema: [[], CONSTRAINED],
  regex: [[""], CONSTRAINED],
  ebnf: [[""], CONSTRAINED],

  typical_p: [[1], OTHER_SAMPLING],
  typical: [[1], OTHER_SAMPLING],
  tfs: [[1], OTHER_SAMPLING],
  tfs_z: [[1], OTHER_SAMPLING],
  top_a: [[0], OTHER_SAMPLING],
  top_n_sigma: [[0, -1], OTHER_SAMPLING],
  epsilon_cutoff: [[0], OTHER_SAMPLING],
  eta_cutoff: [[0], OTHER_SAMPLING],
  xtc_probability: [[0], OTHER_SAMPLING],
  dynatemp_range: [[0], OTHER_SAMPLING],
  smoothing_factor: [[0], OTHER_SAMPLING],
  mirostat: [[0], OTHER_SAMPLING],
  mirostat_mode: [[0], OTHER_SAMPLING],
  min_keep: [[0, 1], OTHER_SAMPLING],
  samplers: [NO_ITEMS, OTHER_SAMPLING],
  do_sample: [[true], "temperature 0 takes the likeliest token each time"],
  use_beam_search: [[false], "only sampling is implemented"],
  num_beams: [[1], "only sampling is implemented"],
  length_penalty: [[0, 1], "only sampling is implemented"],
  early_stopping: [[false], "only sampling is implemented"],
  penalty_alpha: [[0], "only sampling is implemented"],
  guidance_scale: [[1], OTHER_SAMPLING],
  negative_prompt: [[""], OTHER_SAMPLING],

  repeat_penalty: [[1], "use repetition_penalty"],
  rep_pen: [[1], "use repetition_penalty"],
  encoder_repetition_penalty: [[1], OTHER_PENALTY],
  no_repeat_ngram_size: [[0], OTHER_PENALTY],
  dry_multiplier: [[0], OTHER_PENALTY],
  repetition_detection: [[], "it ends at max_tokens, a stop string or a stop token"],

  random_seed: [[], "use seed"],

  bad_words: [NO_ITEMS, "use logit_bias"],
  allowed_token_ids: [NO_ITEMS, "use logit_bias"],
  ban_eos_token: [[false], "use ignore_eos"],
  custom_token_bans: [[""], "use logit_bias"],
  banned_strings: [NO_ITEMS, "use logit_bias"],
  logits_processors: [NO_ITEMS, "use logit_bias"],
  stop_sequences: [NO_ITEMS, "use stop"],
  stop_regex: [NO_ITEMS, "use stop"],
  no_stop_trim: [[false], "use include_stop_str_in_output"],

  max_new_tokens: [[], "use max_tokens, or max_output_tokens on responses"],
  n_predict: [[-1], "use max_tokens, or max_output_tokens on responses"],
  max_length: [[], "use max_tokens, or max_output_tokens on responses"],
  num_predict: [[-1], "use max_tokens, or max_output_tokens on responses"],
  min_new_tokens: [[0], "use min_tokens"],
  min_length: [[0], "use min_tokens"],
  n_indent: [[0], "lines end where the model ends them"],
  t_max_predict_ms: [[0], "use max_tokens, or end the request"],
  n_probs: [[0], "use logprobs"],
  top_n_tokens: [[0], "use logprobs"],
  logprob_token_ids: [[], "log-probabilities are of the likeliest tokens"],
  return_tokens_as_token_ids: [[false], "use return_token_ids"],
  return_tokens: [[false], "use return_token_ids"],
  prompt_embeds: [NO_ITEMS, "prompts are texts, token ids or messages"],
  lora: [NO_ITEMS, "there is one model"],
} as const satisfies Refused;

const IN_CHAT = "it belongs to /v1/chat/completions";
const IN_RESPONSES = "it belongs to /v1/responses";

/** Those of Responses' own that would change an answer. */
const ON_RESPONSES_ONLY = {
  input: [[], IN_RESPONSES],
  instructions: [[""], IN_RESPONSES],
  previous_response_id: [[], IN_RESPONSES],
  text: [[], IN_RESPONSES],
} as const satisfies Refused;

const COMPLETIONS = {
  max_completion_tokens: [[], "use max_tokens on this endpoint"],
  max_output_tokens: [[], "use max_tokens on this endpoint"],
  top_logprobs: [[], "logprobs takes the number on this endpoint"],
  suffix: [[""], "this model has no way to insert before a suffix"],
  messages: [NO_ITEMS, IN_CHAT],
  ...ON_RESPONSES_ONLY,
} as const satisfies Refused;

const CHAT = {
  ...ON_RESPONSES_ONLY,
  max_output_tokens: [[], "use max_completion_tokens on this endpoint"],
  best_of: [[1], "it belongs to /v1/completions"],
  echo: [[false], "it belongs to /v1/completions"],
  suffix: [[""], "this model has no way to insert before a suffix"],
  documents: [NO_ITEMS, "chat_template_kwargs takes variables of the template"],
  functions: [NO_ITEMS, "this model calls no functions"],
  function_call: [["none"], "this model calls no functions"],
  audio: [[], TEXT_ONLY],
  web_search_options: [[], "this server searches nothing"],
} as const satisfies Refused;

const RESPONSES = {
  max_tokens: [[], "use max_output_tokens on this endpoint"],
  max_completion_tokens: [[], "use max_output_tokens on this endpoint"],
  n: [[1], "a response has one output"],
  best_of: [[1], "a response has one output"],
  echo: [[false], "it belongs to /v1/completions"],
  logprobs: [[false], 'put "message.output_text.logprobs" into include'],
  prompt_logprobs: [[], "responses show no prompts"],
  return_token_ids: [[false], "responses show no token ids"],
  truncate_prompt_tokens: [[], "use truncation"],
  session_id: [[], "use previous_response_id"],
  messages: [NO_ITEMS, "use input"],
  functions: [NO_ITEMS, NO_TOOLS],
  function_call: [["none"], NO_TOOLS],
  add_generation_prompt: [[true], "use generate"],
  continue_final_message: [[false], IN_CHAT],
  chat_template: [[], IN_CHAT],
  chat_template_kwargs: [[], IN_CHAT],
  add_special_tokens: [[false], IN_CHAT],
  context_management: [NO_ITEMS, "the state of a conversation doesn't grow"],
  conversation: [[], "go on from a response with previous_response_id"],
  prompt: [[], "there are no stored prompts here"],
} as const satisfies Refused;

export function refusedOnCompletions() {
  return { ...toFields(EVERYWHERE), ...toFields(COMPLETIONS), response_format: textFormat() };
}

export function refusedOnChat() {
  const isText = (value: unknown) => Array.isArray(value) && value.every((mode) => mode === "text");
  const modalities = unsupportedUnless(isText, TEXT_ONLY);
  return { ...toFields(EVERYWHERE), ...toFields(CHAT), response_format: textFormat(), modalities };
}

export function refusedOnResponses() {
  return { ...toFields(EVERYWHERE), ...toFields(RESPONSES), response_format: textFormat() };
}

/** OpenAI's `response_format` and Responses' `text.format`. */
export function textFormat() {
  return unsupportedUnless(
    (value) => value === null || (isRecord(value) && value.type === "text"),
    "output can't be constrained to JSON here; only type text",
  );
}

function toFields<T extends Refused>(refused: T) {
  const fields = Object.entries(refused).map(([name, [neutral, reason]]) => {
    const harmless = new Set(neutral.map((value) => JSON.stringify(value)));
    return [name, unsupportedUnless((value) => harmless.has(JSON.stringify(value)), reason)];
  });
  return Object.fromEntries(fields) as { [name in keyof T]: ReturnType<typeof unsupportedUnless> };
}
