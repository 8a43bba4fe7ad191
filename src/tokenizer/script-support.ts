/**
 * What the JavaScript library encodes as the native one does. Everything else is refused: a
 * tokenizer when it is loaded, a text when it is encoded. Found by comparing the two with many
 * small tokenizers.
 */
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";
import type { TokenizerComponent, TokenizerFiles } from "./files.ts";
import { SPLITTING_PATTERNS, stepsOf } from "./text-cuts.ts";

/** White space to only one of the two libraries. */
const AMBIGUOUS = /[\u0085\uFEFF]/u;

const addedTokens = z.array(
  z.looseObject({
    id: z.number(),
    content: z.string(),
    single_word: z.literal(false).nullish(),
    lstrip: z.literal(false).nullish(),
    rstrip: z.literal(false).nullish(),
    normalized: z.boolean().nullish(),
  }),
);
const empty = z.literal("").nullish();
const models = z.discriminatedUnion("type", [
  z.looseObject({
    type: z.literal("BPE"),
    unk_token: z.string().nullish(),
    dropout: z.literal(0).nullish(),
    continuing_subword_prefix: empty,
    end_of_word_suffix: empty,
  }),
  z.looseObject({ type: z.literal("Unigram"), unk_id: z.int(), byte_fallback: z.literal(false).nullish() }),
]);

/** @throws `invalid_checkpoint`, naming the file and the setting */
export function checkScriptSupport({ path, json }: TokenizerFiles): void {
  const refusal = (what: string) =>
    new DenseMambaError(
      "invalid_checkpoint",
      `${path}: ${what} needs the native tokenizer, which has no build for this platform; the one in JavaScript would encode texts differently`,
    );
  for (const [name, listName, isSupported] of [
    ["normalizer", "normalizers", isSupportedNormalizer],
    ["pre_tokenizer", "pretokenizers", isSupportedPreTokenizer],
  ] as const) {
    const steps = stepsOf(json[name], listName);
    if (steps === undefined) throw refusal(`${name} Sequence`);
    for (const step of steps) if (!isSupported(step)) throw refusal(`${name} ${step.type}`);
  }
  const model = models.safeParse(json.model);
  if (!model.success) throw refusal(`model ${json.model.type}, ${pathOf(model.error)}`);
  const { vocab } = json.model;
  const ids = Array.isArray(vocab) ? new Map(vocab.map(([piece], id) => [piece, id])) : new Map(Object.entries(vocab));
  const spellsBytes = stepsOf(json.pre_tokenizer, "pretokenizers")!.some(({ type }) => type === "ByteLevel");
  if (model.data.type === "BPE" && !spellsBytes && !ids.has(model.data.unk_token ?? "")) {
    throw refusal("model BPE without an unknown token");
  }
  const tokens = addedTokens.safeParse(json.added_tokens);
  if (!tokens.success) throw refusal(`added_tokens.${pathOf(tokens.error)}`);
  const prepends = stepsOf(json.normalizer, "normalizers")!.some(({ type }) => type === "Prepend");
  const normalized = tokens.data.findIndex((token) => token.normalized === true);
  if (prepends && normalized !== -1) throw refusal(`added_tokens.${normalized}.normalized, with Prepend,`);
}

/** @throws `invalid_value` */
export function checkScriptText(text: string): void {
  if (!AMBIGUOUS.test(text)) return;
  throw new DenseMambaError(
    "invalid_value",
    "the text holds U+0085 or U+FEFF, which need the native tokenizer; it has no build for this platform",
  );
}

function pathOf(error: z.ZodError): string {
  return error.issues[0]!.path.join(".");
}

function isSupportedNormalizer(step: TokenizerComponent): boolean {
  switch (step.type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
    case "StripAccents":
    case "Prepend":
      return true;
    case "Replace": {
      const { String: literal } = (step.pattern ?? {}) as { String?: unknown };
      return typeof literal === "string" && literal !== "";
    }
    default:
      return false;
  }
}

function isSupportedPreTokenizer(step: TokenizerComponent): boolean {
  switch (step.type) {
    case "ByteLevel":
    case "WhitespaceSplit":
      return true;
    case "Split": {
      const { Regex } = (step.pattern ?? {}) as { Regex?: unknown };
      return SPLITTING_PATTERNS.has(Regex) && step.behavior === "Isolated" && step.invert !== true;
    }
    case "Metaspace":
      return step.split === false;
    default:
      return false;
  }
}
