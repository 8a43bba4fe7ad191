/**
 * Request fields of other servers (OpenAI, vLLM, SGLang, TGI, llama.cpp, Ollama, KoboldCpp,
 * text-generation-webui) that would change the answer and are not implemented here. They are
 * refused, never ignored, unless they hold the value that changes nothing: many clients send every
 * field they know.
 */
import { type RefusedFields, unsupportedUnless } from "./validate.ts";

const CONSTRAINED = "use response_format, structured_outputs or text.format on responses";
const OTHER_SAMPLING = "it is not among this server's ways to sample";
const OTHER_PENALTY = "use repetition_penalty, presence_penalty or frequency_penalty";
const ONLY_SAMPLING = "only sampling is implemented";
const WHOLE_TEXT = "penalties count all of the text";
const OTHER_LENGTH = "use max_tokens, or max_output_tokens on responses";
const TRUNCATION = "use truncate_prompt_tokens, or truncation on responses";
const BESIDE_PROMPT = "give what it holds as fields of the request, in OpenAI's and vLLM's spelling";
const PROMPTS = "prompts are texts, token ids or messages";
const ONE_MODEL = "there is one model";
const NO_FUNCTIONS = "use tools";
const NO_FUNCTION_CALL = "use tool_choice";
const TEXT_ONLY = "this model reads and writes text only";

const NO_SEARCH = "this server searches nothing";
const THINKING = "use reasoning_effort, reasoning.effort on responses, or enable_thinking on chats";
const THINKING_LENGTH = "reasoning counts towards max_tokens";
const SHOWN_REASONING = "reasoning is returned beside the content; the server's --reasoning says how it is found";

const ONE_MESSAGE = "an answer is one message";
const NO_SERVER_TOOLS = "this server runs no tools";

const NO_ITEMS = [[]];
const NO_FIELDS = [{}];
const NO_TEXTS = [[], ""];

/** On every endpoint that generates. */
const EVERYWHERE: RefusedFields = {
  grammar_string: [[""], CONSTRAINED],
  structural_tag: [[""], CONSTRAINED],
  regex: [[""], CONSTRAINED],
  regex_pattern: [[""], CONSTRAINED],
  ebnf: [[""], CONSTRAINED],
  format: [[""], CONSTRAINED],

  typical_p: [[1], OTHER_SAMPLING],
  typical: [[1], OTHER_SAMPLING],
  tfs: [[1], OTHER_SAMPLING],
  tfs_z: [[1], OTHER_SAMPLING],
  top_a: [[0], OTHER_SAMPLING],
  top_n_sigma: [[0, -1], OTHER_SAMPLING],
  nsigma: [[0, -1], OTHER_SAMPLING],
  skew: [[0], OTHER_SAMPLING],
  epsilon_cutoff: [[0], OTHER_SAMPLING],
  eta_cutoff: [[0], OTHER_SAMPLING],
  xtc_probability: [[0], OTHER_SAMPLING],
  smoothing_curve: [[1], OTHER_SAMPLING],
  sampler_seq: [[""], OTHER_SAMPLING],
  backend_sampling: [[false], OTHER_SAMPLING],
  adaptive_target: [[-1], OTHER_SAMPLING],
  dynamic_temperature: [[false], OTHER_SAMPLING],
  dynatemp_range: [[0], OTHER_SAMPLING],
  dynatemp_min: [[0], OTHER_SAMPLING],
  dynatemp_max: [[0], OTHER_SAMPLING],
  min_temp: [[1], OTHER_SAMPLING],
  max_temp: [[1], OTHER_SAMPLING],
  temperature_last: [[false], OTHER_SAMPLING],
  smoothing_factor: [[0], OTHER_SAMPLING],
  mirostat: [[0], OTHER_SAMPLING],
  mirostat_mode: [[0], OTHER_SAMPLING],
  min_keep: [[0, 1], OTHER_SAMPLING],
  samplers: [NO_TEXTS, OTHER_SAMPLING],
  sampler_order: [NO_ITEMS, OTHER_SAMPLING],
  sampler_priority: [NO_TEXTS, OTHER_SAMPLING],
  custom_logit_processor: [[""], OTHER_SAMPLING],
  custom_params: [NO_FIELDS, OTHER_SAMPLING],
  vllm_xargs: [NO_FIELDS, OTHER_SAMPLING],
  watermark: [[false], OTHER_SAMPLING],
  watermarking: [[false], OTHER_SAMPLING],
  guidance_scale: [[1], OTHER_SAMPLING],
  cfg_scale: [[1], OTHER_SAMPLING],
  negative_prompt: [[""], OTHER_SAMPLING],
  do_sample: [[true], "temperature 0 takes the likeliest token each time"],
  use_beam_search: [[false], ONLY_SAMPLING],
  num_beams: [[1], ONLY_SAMPLING],
  num_beam_groups: [[1], ONLY_SAMPLING],
  beam_width: [[1], ONLY_SAMPLING],
  diversity_penalty: [[0], ONLY_SAMPLING],
  length_penalty: [[0, 1], ONLY_SAMPLING],
  early_stopping: [[false], ONLY_SAMPLING],
  penalty_alpha: [[0], ONLY_SAMPLING],

  rep_pen: [[1], "use repetition_penalty"],
  repeat_last_n: [[-1], WHOLE_TEXT],
  repetition_penalty_range: [[0], WHOLE_TEXT],
  rep_pen_range: [[0], WHOLE_TEXT],
  penalty_range: [[-1], WHOLE_TEXT],
  repetition_context_size: [[], WHOLE_TEXT],
  repetition_decay: [[0], WHOLE_TEXT],
  rep_pen_slope: [[0], WHOLE_TEXT],
  penalize_nl: [[true], WHOLE_TEXT],
  encoder_repetition_penalty: [[1], OTHER_PENALTY],
  no_repeat_ngram_size: [[0], OTHER_PENALTY],
  dry_multiplier: [[0], OTHER_PENALTY],
  repetition_detection: [[], "it ends at max_tokens, a stop string or a stop token"],

  random_seed: [[], "use seed"],
  sampler_seed: [[], "use seed"],
  sampling_seed: [[], "use seed"],

  bad_words_list: [NO_ITEMS, "use bad_words"],
  bad_words_ids: [NO_ITEMS, "use bad_words or logit_bias"],
  allowed_tokens: [NO_ITEMS, "use allowed_token_ids"],
  banned_tokens: [NO_TEXTS, "use bad_words or logit_bias"],
  suppress_tokens: [NO_ITEMS, "use logit_bias"],
  begin_suppress_tokens: [NO_ITEMS, "use logit_bias"],
  custom_token_bans: [[""], "use logit_bias"],
  banned_strings: [NO_TEXTS, "use bad_words"],
  banned_phrases: [NO_ITEMS, "use bad_words"],
  force_words_ids: [NO_ITEMS, ONLY_SAMPLING],
  forced_bos_token_id: [[], ONLY_SAMPLING],
  forced_eos_token_id: [[], ONLY_SAMPLING],
  sequence_bias: [NO_FIELDS, "use logit_bias"],
  exponential_decay_length_penalty: [[], ONLY_SAMPLING],
  logits_processors: [NO_ITEMS, "use logit_bias"],
  logit_bias_type: [["input_ids"], "logit_bias takes token ids"],
  use_default_badwordsids: [[false], "use logit_bias"],
  ban_eos_token: [[false], "use ignore_eos"],
  bypass_eos: [[false], "use ignore_eos"],
  stop_sequences: [NO_ITEMS, "use stop"],
  stop_sequence: [NO_TEXTS, "use stop"],
  stop_words: [NO_ITEMS, "use stop"],
  stop_regex: [NO_TEXTS, "use stop"],
  stopping_strings: [NO_TEXTS, "use stop"],
  custom_stopping_strings: [NO_TEXTS, "use stop"],
  eos_token_id: [[], "use stop_token_ids"],
  end_id: [[], "use stop_token_ids"],
  no_stop_trim: [[false], "use include_stop_str_in_output"],
  trim_stop: [[true], "use include_stop_str_in_output"],
  singleline: [[false], 'use stop: "\\n"'],

  max_new_tokens: [[], OTHER_LENGTH],
  n_predict: [[-1], OTHER_LENGTH],
  max_length: [[], OTHER_LENGTH],
  num_predict: [[-1], OTHER_LENGTH],
  max_tokens_to_sample: [[], OTHER_LENGTH],
  min_new_tokens: [[0], "use min_tokens"],
  min_length: [[0], "use min_tokens"],
  n_indent: [[0], "lines end where the model ends them"],
  t_max_predict_ms: [[0, -1], "use max_tokens, or end the request"],
  max_tokens_second: [[0], "use max_tokens, or end the request"],
  max_time: [[], "use max_tokens, or end the request"],
  n_cmpl: [[1], "use n"],
  num_return_sequences: [[1], "use n"],

  truncate: [[], TRUNCATION],
  truncation_length: [[0], TRUNCATION],
  prompt_truncate_len: [[], TRUNCATION],
  max_context_length: [[], TRUNCATION],
  num_ctx: [[], TRUNCATION],
  context_length_exceeded_behavior: [["error"], TRUNCATION],
  transforms: [NO_ITEMS, TRUNCATION],

  options: [NO_FIELDS, BESIDE_PROMPT],
  parameters: [NO_FIELDS, BESIDE_PROMPT],
  sampling_params: [NO_FIELDS, BESIDE_PROMPT],
  generation_config: [[""], BESIDE_PROMPT],
  preset: [[""], BESIDE_PROMPT],
  inputs: [[""], PROMPTS],
  input_ids: [NO_ITEMS, PROMPTS],
  prompt_embeds: [NO_TEXTS, PROMPTS],
  input_embeds: [NO_ITEMS, PROMPTS],
  system: [[""], PROMPTS],
  system_prompt: [[""], PROMPTS],
  context: [NO_TEXTS, PROMPTS],
  memory: [[""], PROMPTS],
  character: [[""], PROMPTS],
  guideline: [[""], PROMPTS],
  safe_prompt: [[false], PROMPTS],
  raw: [[false], "completions take a prompt as it is"],
  template: [[""], "chats are rendered by the model's own template, or by chat_template"],
  instruction_template: [[""], "chats are rendered by the model's own template, or by chat_template"],
  instruction_template_str: [[""], "chats are rendered by the model's own template, or by chat_template"],
  chat_template_str: [[""], "use chat_template"],
  mode: [["instruct"], "chats are rendered by the model's own template, or by chat_template"],
  continue_: [[false], "use continue_final_message"],
  add_bos_token: [[true], "use add_special_tokens"],
  token_healing: [[false], "a prompt is read as it is"],
  think: [[false], "chat_template_kwargs takes variables of the template"],
  thinking: [[], THINKING],
  thinking_budget: [[-1], THINKING_LENGTH],
  thinking_token_budget: [[-1], THINKING_LENGTH],
  reasoning_budget: [[-1], THINKING_LENGTH],
  max_reasoning_tokens: [[-1], THINKING_LENGTH],
  include_reasoning: [[true], SHOWN_REASONING],
  separate_reasoning: [[true], SHOWN_REASONING],
  stream_reasoning: [[true], SHOWN_REASONING],
  reasoning_format: [["auto", "parsed", "deepseek"], SHOWN_REASONING],
  thinking_forced_open: [[false], SHOWN_REASONING],
  role_mapping: [NO_FIELDS, "chats are rendered by the model's own template, or by chat_template"],
  images: [NO_ITEMS, TEXT_ONLY],
  image_data: [NO_ITEMS, TEXT_ONLY],
  session_params: [NO_FIELDS, "use session_id"],
  search_parameters: [[], NO_SEARCH],
  search_settings: [[], NO_SEARCH],
  data_sources: [NO_ITEMS, NO_SEARCH],
  plugins: [NO_ITEMS, NO_SEARCH],
  lora: [NO_ITEMS, ONE_MODEL],
  lora_path: [[""], ONE_MODEL],
  lora_request: [[], ONE_MODEL],
  adapter: [NO_FIELDS, ONE_MODEL],
  adapter_id: [[""], ONE_MODEL],
  adapters: [NO_TEXTS, ONE_MODEL],

  n_probs: [[0], "use logprobs"],
  top_n_tokens: [[0], "use logprobs"],
  return_logprob: [[false], "use logprobs"],
  top_logprobs_num: [[0], "use logprobs"],
  token_ids_logprob: [NO_ITEMS, "log-probabilities are of the likeliest tokens"],
  logprob_token_ids: [[], "log-probabilities are of the likeliest tokens"],
  post_sampling_probs: [[false], "log-probabilities are the model's own"],
  decoder_input_details: [[false], "use prompt_logprobs"],
  return_full_text: [[false], "use echo"],
  return_prompt_text: [[false], "use echo"],
  return_prompt_token_ids: [[false], "use return_token_ids"],
  return_tokens: [[false], "use return_token_ids"],
  return_hidden_states: [[false], "answers hold text, token ids and log-probabilities"],
  response_fields: [NO_ITEMS, "answers are given whole"],
  detokenize: [[true], "answers are text; return_token_ids adds their ids"],
  render_special: [[false], "use skip_special_tokens"],
};

const IN_CHAT = "it belongs to /v1/chat/completions";
const IN_RESPONSES = "it belongs to /v1/responses";

/** Fields of /v1/responses that would change the answer of another endpoint. */
const ON_RESPONSES_ONLY: RefusedFields = {
  input: [[], IN_RESPONSES],
  include: [NO_ITEMS, IN_RESPONSES],
  truncation: [["disabled"], IN_RESPONSES],
  background: [[false], IN_RESPONSES],
  generate: [[true], IN_RESPONSES],
  instructions: [[""], IN_RESPONSES],
  previous_response_id: [[], IN_RESPONSES],
  conversation: [[], IN_RESPONSES],
  text: [[], IN_RESPONSES],
};

export const REFUSED_ON_COMPLETIONS: RefusedFields = {
  ...EVERYWHERE,
  max_completion_tokens: [[], "use max_tokens on this endpoint"],
  max_output_tokens: [[], "use max_tokens on this endpoint"],
  top_logprobs: [[], "logprobs takes the number on this endpoint"],
  suffix: [[""], "this model has no way to insert before a suffix"],
  messages: [NO_ITEMS, IN_CHAT],
  chat_template: [[], IN_CHAT],
  chat_template_kwargs: [[], IN_CHAT],
  enable_thinking: [[false], IN_CHAT],
  reasoning_effort: [["none"], IN_CHAT],
  reasoning: [NO_FIELDS, IN_CHAT],
  continue_final_message: [[false], IN_CHAT],
  documents: [NO_ITEMS, IN_CHAT],
  tools: [NO_ITEMS, IN_CHAT],
  functions: [NO_ITEMS, IN_CHAT],
  ...ON_RESPONSES_ONLY,
};

export const REFUSED_ON_CHAT: RefusedFields = {
  ...EVERYWHERE,
  ...ON_RESPONSES_ONLY,
  prompt: [NO_TEXTS, "it belongs to /v1/completions"],
  max_output_tokens: [[], "use max_completion_tokens on this endpoint"],
  best_of: [[1], "it belongs to /v1/completions"],
  echo: [[false], "it belongs to /v1/completions"],
  suffix: [[""], "this model has no way to insert before a suffix"],
  documents: [NO_ITEMS, "chat_template_kwargs takes variables of the template"],
  functions: [NO_ITEMS, NO_FUNCTIONS],
  function_call: [["none"], NO_FUNCTION_CALL],
  audio: [[], TEXT_ONLY],
  web_search_options: [[], NO_SEARCH],
};

/** A response has `text.format`. */
const ON_CHAT_AND_COMPLETIONS_ONLY: RefusedFields = {
  structured_outputs: [[], CONSTRAINED],
  guided_json: [[], CONSTRAINED],
  guided_regex: [[""], CONSTRAINED],
  guided_choice: [NO_ITEMS, CONSTRAINED],
  guided_grammar: [[""], CONSTRAINED],
  guided_whitespace_pattern: [[""], CONSTRAINED],
  grammar: [[""], CONSTRAINED],
  json_schema: [[], CONSTRAINED],
};

export const REFUSED_ON_RESPONSES: RefusedFields = {
  ...EVERYWHERE,
  ...ON_CHAT_AND_COMPLETIONS_ONLY,
  max_tokens: [[], "use max_output_tokens on this endpoint"],
  max_completion_tokens: [[], "use max_output_tokens on this endpoint"],
  n: [[1], "a response has one output"],
  best_of: [[1], "a response has one output"],
  echo: [[false], "it belongs to /v1/completions"],
  logprobs: [[false], 'put "message.output_text.logprobs" into include'],
  prompt_logprobs: [[], "responses show no prompts"],
  return_token_ids: [[false], "responses show no token ids"],
  truncate_prompt_tokens: [[], "use truncation"],
  truncation_side: [["left"], "use truncation"],
  return_tokens_as_token_ids: [[false], "responses show no token ids"],
  session_id: [[], "use previous_session_id, which leaves the session as it is, or previous_response_id"],
  messages: [NO_ITEMS, "use input"],
  functions: [NO_ITEMS, NO_FUNCTIONS],
  function_call: [["none"], NO_FUNCTION_CALL],
  add_generation_prompt: [[true], "use generate"],
  continue_final_message: [[false], IN_CHAT],
  chat_template: [[], IN_CHAT],
  chat_template_kwargs: [[], IN_CHAT],
  enable_thinking: [[], "use reasoning.effort"],
  reasoning_effort: [[], "use reasoning.effort"],
  add_special_tokens: [[false], IN_CHAT],
  context_management: [NO_ITEMS, "the state of a conversation doesn't grow"],
  prompt: [[], "there are no stored prompts here"],
};

const PAIRS = "text_1 is what comes before, and text_2 what is scored";

export const REFUSED_ON_SCORE: RefusedFields = {
  data_1: [[], PAIRS],
  data_2: [[], PAIRS],
  queries: [[], PAIRS],
  documents: [[], PAIRS],
  instruction: [[""], PAIRS],
  items: [[], PAIRS],
  chat_template: [[], PAIRS],
  chat_template_kwargs: [[], PAIRS],
  use_activation: [[], "a score is a log-probability"],
  activation: [[], "a score is a log-probability"],
  softmax_normalize: [[false], "a score is a log-probability"],
  mm_processor_kwargs: [[], TEXT_ONLY],
  truncate_prompt_tokens: [[], "texts are scored whole"],
};

const ONE_VECTOR = "a text has one vector: its hidden states, pooled, of length 1";
const ONE_TASK = "the model reads all texts alike: write what they are for into the text";

/** vLLM's, llama.cpp's, TEI's, Jina's and Cohere's. */
export const REFUSED_ON_EMBEDDINGS: RefusedFields = {
  messages: [NO_ITEMS, "use input"],
  content: [[], "use input"],
  inputs: [[], "use input"],
  texts: [[], "use input"],
  images: [NO_ITEMS, TEXT_ONLY],
  chat_template: [[], "texts are read as they are"],
  chat_template_kwargs: [[], "texts are read as they are"],
  add_generation_prompt: [[false], "texts are read as they are"],
  normalize: [[true], ONE_VECTOR],
  normalized: [[true], ONE_VECTOR],
  use_activation: [[true], ONE_VECTOR],
  embd_normalize: [[2], ONE_VECTOR],
  late_chunking: [[false], ONE_VECTOR],
  return_multivector: [[false], ONE_VECTOR],
  pooling_type: [[], "use pooling"],
  task: [[], ONE_TASK],
  input_type: [[], ONE_TASK],
  prompt_name: [[], ONE_TASK],
  instruction: [[""], ONE_TASK],
  truncate: [[false], "use truncate_prompt_tokens"],
  truncation_direction: [[], "use truncation_side"],
  embedding_type: [["float"], "use encoding_format"],
  embedding_types: [[], "use encoding_format"],
  output_dtype: [["float"], "use encoding_format"],
  embed_dtype: [["float32"], "vectors are of 32-bit numbers"],
  embedding_dtype: [["float32"], "vectors are of 32-bit numbers"],
  endianness: [["native", "little"], "vectors are little-endian"],
  mm_processor_kwargs: [[], TEXT_ONLY],
};

export const REFUSED_ON_TOKENIZE: RefusedFields = {
  inputs: [[""], "use prompt"],
  with_pieces: [[false], "use return_token_strs"],
  parse_special: [[true], "special tokens in a text are always read as such"],
};

/** What a chat's answer is made of. */
export function textModalities() {
  return unsupportedUnless((value) => Array.isArray(value) && value.every((mode) => mode === "text"), TEXT_ONLY);
}

const { stop_sequences: _1, system: _2, thinking: _3, ...NOT_IN_MESSAGES } = EVERYWHERE;

/** On Anthropic's endpoints, which have some of the others' fields themselves. */
export const REFUSED_ON_MESSAGES: RefusedFields = {
  ...NOT_IN_MESSAGES,
  stop: [NO_TEXTS, "use stop_sequences on this endpoint"],
  n: [[1], ONE_MESSAGE],
  best_of: [[1], ONE_MESSAGE],
  echo: [[false], ONE_MESSAGE],
  logprobs: [[false], IN_CHAT],
  top_logprobs: [[0], IN_CHAT],
  prompt_logprobs: [[], IN_CHAT],
  return_token_ids: [[false], IN_CHAT],
  response_format: [[], "use output_config.format on this endpoint"],
  chat_template: [[], IN_CHAT],
  chat_template_kwargs: [[], IN_CHAT],
  reasoning_effort: [["none"], "use output_config.effort on this endpoint"],
  session_id: [[], IN_CHAT],
  truncate_prompt_tokens: [[], IN_CHAT],
  max_completion_tokens: [[], "use max_tokens on this endpoint"],
  max_output_tokens: [[], "use max_tokens on this endpoint"],
  container: [[], NO_SERVER_TOOLS],
  mcp_servers: [NO_ITEMS, NO_SERVER_TOOLS],
  context_management: [[], "the whole conversation is in the state, which doesn't grow"],
};
