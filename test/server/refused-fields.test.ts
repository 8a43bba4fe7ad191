/**
 * What other servers' documents list as fields that change the output, each with a value that does:
 * it is refused by name on every endpoint that generates, or honoured there. A field that is new
 * there belongs here.
 */
import { describe, expect, it } from "vitest";
import { createTestServer } from "../helpers/server-deps.ts";

const FIELDS = {
  "llama.cpp": {
    ...{ n_predict: 5, n_indent: 2, t_max_predict_ms: 100, n_cmpl: 2, n_probs: 3, min_keep: 2, dynatemp_range: 0.5 },
    ...{ top_n_sigma: 2, xtc_probability: 0.5, typical_p: 0.5, repeat_last_n: 64 },
    ...{ dry_multiplier: 0.8, mirostat: 2, adaptive_target: 0.5, samplers: ["top_k"] },
    ...{ lora: [{ id: 0, scale: 1 }], image_data: [{}], return_tokens: true, penalize_nl: false },
    ...{ post_sampling_probs: true, response_fields: ["content"], system_prompt: "Be brief." },
    ...{ backend_sampling: true, reasoning_format: "none", thinking_forced_open: true, reasoning_budget: 0 },
  },
  vLLM: {
    ...{ use_beam_search: true, length_penalty: 2, logits_processors: ["a"] },
    ...{ guided_whitespace_pattern: " " },
    ...{ vllm_xargs: { a: 1 }, logprob_token_ids: [1], thinking_token_budget: 5, include_reasoning: false },
    ...{ prompt_embeds: "AAAA", detokenize: false, watermarking: true, return_prompt_text: true, lora_request: {} },
    ...{ repetition_detection: {}, early_stopping: true, structural_tag: "a" },
  },
  SGLang: {
    ...{ max_new_tokens: 5, min_new_tokens: 5, regex: "a", ebnf: "a", stop_regex: "a", no_stop_trim: true },
    ...{ sampling_seed: 1, lora_path: "a", session_params: { id: "a" }, custom_params: { a: 1 } },
    ...{ custom_logit_processor: "a", return_hidden_states: true, input_ids: [1], sampling_params: { top_k: 1 } },
    ...{ return_logprob: true, top_logprobs_num: 2, token_ids_logprob: [1], return_prompt_token_ids: true },
    ...{ input_embeds: [1], separate_reasoning: false, stream_reasoning: false },
  },
  TGI: {
    ...{ inputs: "a", parameters: { top_k: 1 }, do_sample: false, watermark: true, return_full_text: true },
    ...{
      truncate: 5,
      decoder_input_details: true,
      top_n_tokens: 2,
      adapter_id: "a",
      stop_sequences: ["a"],
      guideline: "a",
    },
  },
  Ollama: {
    ...{ options: { temperature: 0 }, format: "json", system: "Be brief.", template: "{{ .Prompt }}", raw: true },
    ...{ context: [1], images: ["AAAA"], think: true, num_predict: 5, num_ctx: 512, tfs_z: 0.5 },
  },
  KoboldCpp: {
    ...{ max_length: 5, max_context_length: 512, rep_pen: 1.1, rep_pen_range: 64, rep_pen_slope: 0.7, top_a: 0.5 },
    ...{ tfs: 0.5, typical: 0.5, sampler_order: [6, 0], sampler_seed: 1, stop_sequence: ["a"], memory: "a" },
    ...{ trim_stop: false, bypass_eos: true, use_default_badwordsids: true, banned_tokens: ["a"], nsigma: 1 },
    ...{ render_special: true, singleline: true, smoothing_factor: 0.5, adapter: { a: 1 }, banned_strings: ["a"] },
  },
  "text-generation-webui": {
    ...{ preset: "a", dynamic_temperature: true, epsilon_cutoff: 1, eta_cutoff: 1, encoder_repetition_penalty: 1.1 },
    ...{ no_repeat_ngram_size: 2, repetition_penalty_range: 64, penalty_alpha: 0.5, guidance_scale: 2 },
    ...{ mirostat_mode: 2, temperature_last: true, max_tokens_second: 5, ban_eos_token: true, add_bos_token: false },
    ...{ truncation_length: 512, custom_token_bans: "1", negative_prompt: "a", sampler_priority: ["top_k"] },
    ...{ grammar_string: "a", mode: "chat", character: "a", instruction_template: "a", continue_: true },
    ...{ instruction_template_str: "a", chat_template_str: "a", custom_stopping_strings: ["a"] },
    ...{ stopping_strings: ["a"], smoothing_curve: 2 },
  },
  others: {
    ...{ skew: 1, dynatemp_min: 1, dynatemp_max: 2, min_temp: 0.5, max_temp: 2, cfg_scale: 2, penalty_range: 64 },
    ...{ repetition_decay: 5, allowed_tokens: [1], banned_phrases: ["a"], regex_pattern: "a", token_healing: true },
    ...{ repetition_context_size: 20, adapters: "a", logit_bias_type: "tokens", random_seed: 1, safe_prompt: true },
    ...{ num_beams: 2, num_beam_groups: 2, beam_width: 2, diversity_penalty: 1, num_return_sequences: 2, max_time: 1 },
    ...{ min_length: 5, generation_config: "{}", bad_words_list: ["a"], stop_words: ["a"] },
    ...{ max_tokens_to_sample: 5, prompt_truncate_len: 5, eos_token_id: 5, end_id: 5, bad_words_ids: [[1]] },
    ...{ suppress_tokens: [1], begin_suppress_tokens: [1], force_words_ids: [[1]], sequence_bias: { a: 1 } },
    ...{ forced_bos_token_id: 1, forced_eos_token_id: 1, exponential_decay_length_penalty: [5, 1.1] },
    ...{ transforms: ["middle-out"], context_length_exceeded_behavior: "truncate", thinking: { type: "enabled" } },
    ...{ thinking_budget: 5, max_reasoning_tokens: 5, role_mapping: { user: "a" }, search_parameters: {} },
    ...{ search_settings: {}, data_sources: [{}], plugins: [{}] },
  },
};

const USER = { role: "user", content: "a" };
const ENDPOINTS: readonly [path: string, body: object][] = [
  ["/v1/completions", { prompt: "a" }],
  ["/v1/chat/completions", { messages: [{ role: "user", content: "a" }] }],
  ["/v1/responses", { input: "a" }],
];

describe.each(ENDPOINTS)("%s", (path, body) => {
  it.each(Object.entries(FIELDS))("refuses those of %s", async (_, fields) => {
    const server = createTestServer();
    for (const [name, value] of Object.entries(fields)) {
      const response = await server.post(path, { ...body, [name]: value });
      expect(response.status, name).toBe(400);
      expect(await response.json()).toMatchObject({ error: { code: "unsupported_value", param: name } });
    }
    expect(server.generator.requests).toEqual([]);
  });
});

it.each<[path: string, body: object, param: string]>([
  ["/v1/completions", { prompt: "a", chat_template: "a" }, "chat_template"],
  ["/v1/completions", { prompt: "a", chat_template_kwargs: {} }, "chat_template_kwargs"],
  ["/v1/completions", { prompt: "a", enable_thinking: true }, "enable_thinking"],
  ["/v1/responses", { input: "a", enable_thinking: false }, "enable_thinking"],
  ["/v1/completions", { prompt: "a", reasoning_effort: "low" }, "reasoning_effort"],
  ["/v1/completions", { prompt: "a", reasoning: { effort: "low" } }, "reasoning"],
  ["/v1/responses", { input: "a", reasoning_effort: "low" }, "reasoning_effort"],
  ["/v1/completions", { prompt: "a", tools: [{}] }, "tools"],
  ["/v1/completions", { prompt: "a", include: ["message.output_text.logprobs"] }, "include"],
  ["/v1/completions", { prompt: "a", truncation: "auto" }, "truncation"],
  ["/v1/chat/completions", { messages: [{ role: "user", content: "a" }], prompt: "b" }, "prompt"],
  ["/v1/chat/completions", { messages: [{ role: "user", content: "a" }], background: true }, "background"],
  ["/v1/chat/completions", { messages: [{ role: "assistant", content: "a", prefix: true }] }, "messages[0].prefix"],
  ["/v1/chat/completions", { messages: [{ role: "assistant", content: "a", partial: true }] }, "messages[0].partial"],
  ["/v1/responses", { input: [{ role: "assistant", content: "a", prefix: true }] }, "input[0].prefix"],
  ["/v1/responses", { input: "a", truncation_side: "right" }, "truncation_side"],
  ["/v1/responses", { input: "a", reasoning: { exclude: true } }, "reasoning.exclude"],
  ["/v1/chat/completions", { messages: [USER], reasoning: { max_tokens: 5 } }, "reasoning.max_tokens"],
  ["/v1/chat/completions", { messages: [USER], reasoning: { enabled: false } }, "reasoning.enabled"],
  ["/v1/responses", { input: "a", grammar: 'root ::= "a"' }, "grammar"],
  ["/v1/responses", { input: "a", json_schema: {} }, "json_schema"],
  ["/v1/responses", { input: "a", guided_json: {} }, "guided_json"],
  ["/v1/responses", { input: "a", guided_choice: ["a"] }, "guided_choice"],
  ["/v1/responses", { input: "a", guided_grammar: 'root ::= "a"' }, "guided_grammar"],
  ["/v1/responses", { input: "a", structured_outputs: { regex: "a" } }, "structured_outputs"],
  ["/v1/responses", { input: "a", response_format: { type: "json_object" } }, "response_format"],
  [
    "/v1/completions",
    { prompt: "a", structured_outputs: { structural_tag: "a" } },
    "structured_outputs.structural_tag",
  ],
  ["/v1/responses", { input: "a", return_tokens_as_token_ids: true }, "return_tokens_as_token_ids"],
  ["/tokenize", { content: "a", with_pieces: true }, "with_pieces"],
  ["/tokenize", { content: "a", parse_special: false }, "parse_special"],
])("%s %j is refused at %s", async (path, body, param) => {
  const response = await createTestServer().post(path, body);
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ error: { code: "unsupported_value", param } });
});
