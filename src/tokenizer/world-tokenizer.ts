/**
 * The tokenizer of RWKV's models, from its vocabulary file alone: what the file does not say. Id 0,
 * which no text has, ends a document; chats are plain text.
 */
import { DenseMambaError } from "../errors.ts";
import { MAX_TOKEN_ID, type TextFiles } from "./files.ts";
import { ModelTokenizer } from "./model-tokenizer.ts";
import type { DefaultChat } from "./tokenizer.ts";
import { decodeUtf8 } from "./utf8.ts";
import { VocabTable } from "./vocab-table.ts";
import { WorldEncoder } from "./world-encoder.ts";
import { parseWorldVocabulary, type WorldToken } from "./world-vocabulary.ts";

const END_ID = 0;
/**
 * The models have 65,536 ids for the vocabulary's 65,530. A file that is cut off at the end of a
 * line is sound otherwise.
 */
const MAX_PADDING = 1024;
/** As transformers' tokenizers spell id 0. */
const END_TEXT = "<|rwkv_tokenizer_end_of_text|>";

/**
 * Turns end at an empty line, so instructions and a user's message have none. With
 * `enable_thinking` the model begins with what it thinks, up to `</think>`. NOTE: its tag is left
 * open, as the models are trained: what closes it is a part of tokens such as `>\n`. What was
 * thought in earlier turns stays, as in RWKV's own runners.
 */
export const WORLD_CHAT: DefaultChat = {
  template: `{% for message in messages %}
{%- set lines = message.content.replace('\\r\\n', '\\n').split('\\n') %}
{%- if message.role == 'system' or message.role == 'developer' %}System: {{ lines | select | join('\\n') | trim }}
{%- elif message.role == 'user' %}User: {{ lines | select | join('\\n') | trim }}
{%- else %}{{ message.role | capitalize }}: {% if message.reasoning %}<think>
{{ message.reasoning | trim }}
</think>
{% endif %}{{ message.content | trim }}{% endif %}{{ '\\n\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}Assistant:{% if enable_thinking %} <think{% endif %}{% endif %}`,
  stopStrings: ["\n\nUser:"],
};

/** @throws `invalid_checkpoint` */
export function openWorld(files: TextFiles): ModelTokenizer {
  const tokens = parseWorldVocabulary(files.text, files.path);
  const special = specialTexts(files, tokens);
  const roles = Object.entries(files.specialTokens).filter(([, text]) => special.has(text) || text === END_TEXT);
  const entries = tokens.map(({ id, bytes, literal }) => {
    const text = decodeUtf8(bytes);
    return { id, bytes, spelling: text.includes("\uFFFD") ? literal : text };
  });
  const added = [...special, [END_TEXT, END_ID] as const].map(([text, id]) => {
    return { id, bytes: Buffer.from(text), spelling: text };
  });
  const named = roles.map(([role, text]) => [role, special.get(text) ?? END_ID] as const);
  return new ModelTokenizer(files, {
    vocab: new VocabTable([...entries, ...added]),
    encoder: new WorldEncoder(tokens, special),
    surroundingTokens: { prefix: [], suffix: [] },
    specialTokens: { eos_token: END_TEXT, ...Object.fromEntries(roles) },
    roleIds: new Map([["eos_token", END_ID], ...named]),
    specialIds: [END_ID, ...special.values()],
    defaultChat: WORLD_CHAT,
    maxPadding: MAX_PADDING,
  });
}

/**
 * Texts that are one token each, if files beside the vocabulary say so. NOTE: fla's say it of an
 * empty line, which the vocabulary spells already; the second id has an embedding that was never
 * trained. Without such files the end's text is text like any other.
 */
function specialTexts(
  { path, addedTokenIds, specialTokens, chatTemplate }: TextFiles,
  tokens: readonly WorldToken[],
): Map<string, number> {
  const ids = new Set(tokens.map(({ id }) => id));
  const texts = new Set(tokens.map(({ bytes }) => decodeUtf8(bytes)));
  if (ids.has(END_ID)) throw invalid(`${path}: a token has id 0, which ends a text`);
  const special = new Map<string, number>();
  for (const [text, id] of addedTokenIds) {
    if (!Number.isInteger(id) || id > MAX_TOKEN_ID) {
      throw invalid(`${path}: tokenizer_config.json adds a token of id ${id}; at most ${MAX_TOKEN_ID} is possible`);
    }
    if (text !== "" && !ids.has(id) && !texts.has(text)) special.set(text, id);
  }
  if (Object.values(specialTokens).includes(END_TEXT) || chatTemplate?.includes(END_TEXT))
    special.set(END_TEXT, END_ID);
  return special;
}

function invalid(message: string): DenseMambaError {
  return new DenseMambaError("invalid_checkpoint", message);
}
