/**
 * A checkpoint's tokenizer files, parsed and validated as far as they are used. Knows nothing of
 * encoding. Errors are `invalid_checkpoint`, with the file's path.
 */
import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";

/** A larger id is a mistake. Also bounds the tables that are indexed by id. */
export const MAX_TOKEN_ID = 2 ** 24;

/** BPE, WordPiece and WordLevel: piece → id. Unigram: [piece, score] by id. */
type Vocabulary = Readonly<Record<string, number>> | readonly (readonly [piece: string, score: number])[];

const tokenId = z.int().min(0).max(MAX_TOKEN_ID);
const component = z.looseObject({ type: z.string() });

const tokenizerJson = z.looseObject({
  added_tokens: z
    .array(z.looseObject({ id: tokenId, content: z.string(), special: z.boolean().optional() }))
    .nullish()
    .transform((tokens) => tokens ?? []),
  normalizer: component.nullish(),
  pre_tokenizer: component.nullish(),
  post_processor: component.nullish(),
  decoder: component.nullish(),
  model: z.looseObject({
    vocab: z.custom<Vocabulary>(isVocabulary, `expected pieces with ids from 0 to ${MAX_TOKEN_ID}`),
  }),
});

/** A special token is written as its text or as a serialised AddedToken. */
const specialToken = z
  .union([z.string(), z.looseObject({ content: z.string() }).transform((token) => token.content)])
  .nullish();

const specialTokens = z.looseObject({
  bos_token: specialToken,
  eos_token: specialToken,
  pad_token: specialToken,
  unk_token: specialToken,
});

/** transformers' tokenizers in Python keep here what others have in tokenizer.json. */
const addedTokensDecoder = z.record(z.string(), z.looseObject({ content: z.string() })).nullish();

const tokenizerConfig = specialTokens.extend({
  tokenizer_class: z.string().nullish(),
  added_tokens_decoder: addedTokensDecoder,
  add_bos_token: z.boolean().nullish(),
  add_eos_token: z.boolean().nullish(),
  chat_template: z.union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))]).nullish(),
});

const generationConfig = z.looseObject({ eos_token_id: z.union([tokenId, z.array(tokenId)]).nullish() });

export type TokenizerJson = z.infer<typeof tokenizerJson>;
export type TokenizerComponent = z.infer<typeof component>;
export const SPECIAL_ROLES = ["bos_token", "eos_token", "pad_token", "unk_token"] as const;

/** What stands beside a vocabulary, of any kind. */
export interface TextFiles {
  /** Of the vocabulary. */
  readonly path: string;
  /** The contents of the vocabulary's file. */
  readonly text: string;
  /** transformers' class. */
  readonly className: string | undefined;
  readonly addBosToken: boolean | undefined;
  readonly addEosToken: boolean | undefined;
  readonly chatTemplate: string | undefined;
  /** Role → text, for the roles that are set. */
  readonly specialTokens: Readonly<Record<string, string>>;
  /** From generation_config.json. */
  readonly endTokenIds: readonly number[];
  /** From tokenizer_config.json: text → id. */
  readonly addedTokenIds: ReadonlyMap<string, number>;
}

/** With a tokenizer.json, which a library encodes by. */
export interface TokenizerFiles extends TextFiles {
  readonly json: TokenizerJson;
}

/** RWKV's World vocabulary, `rwkv_vocab_v20230424.txt`, or another in its format. */
const WORLD_VOCABULARY = /^rwkv_vocab.*\.txt$/;

/** @returns undefined if the folder has no tokenizer.json */
export async function readTokenizerFiles(modelDir: string): Promise<TokenizerFiles | undefined> {
  const path = join(modelDir, "tokenizer.json");
  const files = await readTextFiles(path);
  return files && { ...files, json: parseJson(path, files.text, tokenizerJson) };
}

/** @returns undefined if the folder has no vocabulary of RWKV's */
export async function readWorldFiles(folder: string): Promise<TextFiles | undefined> {
  const names = await readdir(folder).catch(() => []);
  const [name] = names.filter((candidate) => WORLD_VOCABULARY.test(candidate)).sort();
  return name === undefined ? undefined : readTextFiles(join(folder, name));
}

/** @param path of the vocabulary, by any name. @returns undefined if it is not there */
export async function readTextFiles(path: string): Promise<TextFiles | undefined> {
  const folder = dirname(path);
  const [text, config, map, template, generation] = await Promise.all([
    readJsonText(path),
    readJson(join(folder, "tokenizer_config.json"), tokenizerConfig),
    readJson(join(folder, "special_tokens_map.json"), specialTokens),
    readOptional(join(folder, "chat_template.jinja")),
    readJson(join(folder, "generation_config.json"), generationConfig),
  ]);
  if (text === undefined) return undefined;
  const special: Record<string, string> = {};
  for (const role of SPECIAL_ROLES) {
    const content = config?.[role] ?? map?.[role];
    if (typeof content === "string") special[role] = content;
  }
  return {
    path,
    text,
    className: config?.tokenizer_class ?? undefined,
    addBosToken: config?.add_bos_token ?? undefined,
    addEosToken: config?.add_eos_token ?? undefined,
    chatTemplate: template ?? pickTemplate(config?.chat_template),
    specialTokens: special,
    endTokenIds: [generation?.eos_token_id ?? []].flat(),
    addedTokenIds: new Map(
      Object.entries(config?.added_tokens_decoder ?? {}).map(([id, { content }]) => [content, Number(id)]),
    ),
  };
}

/**
 * Of several named templates `default` is for plain chats, and `tool_use` for those with tools:
 * they become one, in which neither loses a line feed at its edges.
 */
function pickTemplate(template: z.infer<typeof tokenizerConfig>["chat_template"]): string | undefined {
  if (!Array.isArray(template)) return template ?? undefined;
  const named = (name: string) => template.find((candidate) => candidate.name === name)?.template.replace(/\n$/, "");
  const [plain, withTools] = [named("default"), named("tool_use")];
  if (plain === undefined) return template.length === 1 ? template[0]!.template : undefined;
  return withTools === undefined ? plain : `{% if tools +%}${withTools}{%+ else +%}${plain}{%+ endif %}`;
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new DenseMambaError("invalid_checkpoint", `${path} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Without the byte order mark that Windows editors put first. */
async function readJsonText(path: string): Promise<string | undefined> {
  return (await readOptional(path))?.replace(/^\uFEFF/, "");
}

async function readJson<Schema extends z.ZodType>(path: string, schema: Schema): Promise<z.infer<Schema> | undefined> {
  const text = await readJsonText(path);
  return text === undefined ? undefined : parseJson(path, text, schema);
}

function parseJson<Schema extends z.ZodType>(path: string, text: string, schema: Schema): z.infer<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new DenseMambaError("invalid_checkpoint", `${path} is not JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const place = issue.path.join(".") || "the file";
  throw new DenseMambaError("invalid_checkpoint", `${path}: ${place}: ${issue.message}`, { cause: parsed.error });
}

/** By hand: zod takes half a second for a large vocabulary. */
function isVocabulary(value: unknown): value is Vocabulary {
  if (typeof value !== "object" || value === null) return false;
  if (Array.isArray(value)) return value.every((entry) => Array.isArray(entry) && typeof entry[0] === "string");
  return Object.values(value).every((id) => Number.isInteger(id) && id >= 0 && id <= MAX_TOKEN_ID);
}
