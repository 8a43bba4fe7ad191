/**
 * Places where a text may be cut so that its parts, encoded one by one, give the ids of the whole.
 * There are two kinds: before a space between words, and after a line break between lines.
 * tokenizer.json proves which are valid: either the pre-tokenizer always splits there, or no piece
 * of the vocabulary spans such a place. Others are not used. Pure.
 */
import { z } from "zod";
import type { TokenizerComponent, TokenizerJson } from "./files.ts";

export interface TextCuts {
  /** The tokenizer puts something before every text: parts must be encoded after a sentinel. */
  readonly needsSentinel: boolean;
  /** The last place in `(begin, end]`; undefined if there is none. */
  last(text: string, begin: number, end: number): number | undefined;
  /** The first place after `begin`, up to `end`. */
  first(text: string, begin: number, end: number): number | undefined;
}

const NEWLINE = 0x0a;
const SPACE = 0x20;

/**
 * GPT-2's is the ByteLevel pre-tokenizer's. None looks back or matches across a place of either
 * kind.
 */
export const SPLITTING_PATTERNS: ReadonlySet<unknown> = new Set([
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
]);

/** How the pipeline spells the characters at a cut, and whether it splits there. */
interface Pipeline {
  space: string;
  newline: string;
  splitsWords: boolean;
  splitsLines: boolean;
  /** A part may begin with a line: no step changes it or puts something before it. */
  keepsLines: boolean;
  needsSentinel: boolean;
}

const added = z.looseObject({
  content: z.string(),
  lstrip: z.boolean().nullish(),
  rstrip: z.boolean().nullish(),
  single_word: z.boolean().nullish(),
});
const bpe = z.looseObject({
  type: z.literal("BPE"),
  vocab: z.record(z.string(), z.number()),
  byte_fallback: z.boolean().nullish(),
  ignore_merges: z.literal(false).nullish(),
  continuing_subword_prefix: z.literal("").nullish(),
  end_of_word_suffix: z.literal("").nullish(),
  dropout: z.null().optional(),
});

/** @returns undefined if no kind of place is known to be valid */
export function findTextCuts(json: TokenizerJson): TextCuts | undefined {
  const pipeline = followPipeline(json);
  const tokens = z.array(added).safeParse(json.added_tokens).data;
  if (pipeline === undefined || tokens === undefined) return undefined;
  const excluded = { before: new Set<string>(), after: new Set<string>() };
  let words = true;
  // If the pre-tokenizer splits, a sentinel could join the first word of a line.
  let lines = pipeline.keepsLines && !(pipeline.needsSentinel && pipeline.splitsLines);
  for (const { content, lstrip, rstrip, single_word: isWord } of tokens) {
    const variants = [content, content.toLowerCase(), content.toUpperCase(), content.normalize("NFKC")];
    // It could span the place.
    if (/[^\s▁][\s▁]/u.test(content)) words = false;
    if (/\n\S/u.test(content) || lstrip) lines = false;
    if (isWord && /^[\s▁]/u.test(content)) words = false;
    // What is put before a text is also put after such a token.
    if (pipeline.needsSentinel) {
      for (const variant of variants) excluded.before.add(variant.at(-1) ?? "");
      if (content.endsWith("\n")) lines = false;
    }
    // It takes the space next to it.
    if (rstrip) for (const variant of variants) excluded.before.add(variant.at(-1) ?? "");
    if (lstrip) for (const variant of variants) excluded.after.add(variant.at(0) ?? "");
  }
  if (!pipeline.splitsWords || !pipeline.splitsLines) {
    const reach = findReach(json, pipeline);
    words &&= pipeline.splitsWords || reach.words;
    lines &&= pipeline.splitsLines || reach.lines;
    if (!pipeline.splitsWords) for (const character of reach.beforeSpace) excluded.before.add(character);
  }
  if (!words && !lines) return undefined;
  const isCut = (text: string, at: number) =>
    (words && isWordCut(text, at, excluded)) || (lines && isLineCut(text, at));
  return {
    needsSentinel: pipeline.needsSentinel,
    last(text, begin, end) {
      for (let at = end; at > begin; at--) if (isCut(text, at)) return at;
      return undefined;
    },
    first(text, begin, end) {
      for (let at = begin + 1; at <= end; at++) if (isCut(text, at)) return at;
      return undefined;
    },
  };
}

/** Before a single space between printing ASCII characters. */
function isWordCut(
  text: string,
  at: number,
  excluded: { readonly before: ReadonlySet<string>; readonly after: ReadonlySet<string> },
): boolean {
  if (text.charCodeAt(at) !== SPACE || !prints(text.charCodeAt(at - 1)) || !prints(text.charCodeAt(at + 1)))
    return false;
  return !excluded.before.has(text[at - 1]!) && !excluded.after.has(text[at + 1]!);
}

/** After a single line break between letters, digits and signs. */
function isLineCut(text: string, at: number): boolean {
  return text.charCodeAt(at - 1) === NEWLINE && isSolid(text[at - 2]) && isSolid(text[at]);
}

function prints(unit: number): boolean {
  return unit > SPACE && unit < 0x7f;
}

function isSolid(unit: string | undefined): boolean {
  return unit !== undefined && /^[\p{L}\p{N}\p{P}\p{S}]$/u.test(unit) && unit !== "▁";
}

/** Undefined if a step's effect on a place is not known. */
function followPipeline(json: TokenizerJson): Pipeline | undefined {
  const pipeline = {
    ...{ space: " ", newline: "\n", splitsWords: false, splitsLines: false },
    ...{ keepsLines: true, needsSentinel: false },
  };
  const normalizers = stepsOf(json.normalizer, "normalizers");
  const preTokenizers = stepsOf(json.pre_tokenizer, "pretokenizers");
  if (!normalizers?.every((step) => followNormalizer(step, pipeline))) return undefined;
  if (!preTokenizers?.every((step) => followPreTokenizer(step, pipeline))) return undefined;
  return pipeline;
}

/** A component's steps in order. Undefined if it is malformed. */
export function stepsOf(given: unknown, listName: string): readonly TokenizerComponent[] | undefined {
  if (given === null || given === undefined) return [];
  const { type, [listName]: list } = given as TokenizerComponent;
  if (type !== "Sequence") return [given as TokenizerComponent];
  if (!Array.isArray(list)) return undefined;
  const steps = list.map((step) => stepsOf(step, listName));
  return steps.every((step) => step !== undefined) ? steps.flat() : undefined;
}

/** Whether it leaves the characters at a place unchanged. */
function followNormalizer(step: TokenizerComponent, pipeline: Pipeline): boolean {
  switch (step.type) {
    case "Prepend":
      pipeline.needsSentinel = true;
      return true;
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
    case "Lowercase":
    case "StripAccents":
      return true;
    case "BertNormalizer":
    case "Nmt":
    case "Precompiled":
      pipeline.keepsLines = false;
      return true;
    case "Replace": {
      const pattern = (step.pattern as { String?: unknown } | undefined)?.String;
      const { content } = step;
      if (typeof pattern !== "string" || typeof content !== "string") return false;
      if (pattern === " " && content === "▁") {
        pipeline.space = content;
        return true;
      }
      return pattern !== "" && content !== "" && !/[\s▁]/u.test(pattern + content);
    }
    default:
      return false;
  }
}

function followPreTokenizer(step: TokenizerComponent, pipeline: Pipeline): boolean {
  const splits = (words: boolean, lines: boolean) => {
    pipeline.splitsWords ||= words && pipeline.space === " ";
    pipeline.splitsLines ||= lines;
    return true;
  };
  switch (step.type) {
    case "ByteLevel":
      if (step.add_prefix_space === true) {
        pipeline.keepsLines = false;
        pipeline.needsSentinel = true;
      }
      if (step.use_regex !== false) return splits(true, true);
      if (pipeline.space === " ") pipeline.space = "Ġ";
      pipeline.newline = "Ċ";
      return true;
    case "Whitespace":
    case "WhitespaceSplit":
    case "BertPreTokenizer":
      return splits(true, true);
    case "Digits":
      return true;
    case "Punctuation":
      return step.behavior === undefined || step.behavior === "Isolated";
    case "CharDelimiterSplit":
      return step.delimiter === " " && splits(true, false);
    case "Split": {
      const { Regex, String: literal } = (step.pattern ?? {}) as { Regex?: unknown; String?: unknown };
      if (step.invert === true) return false;
      if (SPLITTING_PATTERNS.has(Regex) && step.behavior === "Isolated") return splits(true, true);
      return literal === " " && step.behavior !== "MergedWithPrevious" && splits(true, false);
    }
    case "Metaspace":
      if (step.replacement !== "▁") return false;
      pipeline.keepsLines = false;
      pipeline.needsSentinel ||= step.prepend_scheme !== "never";
      pipeline.space = "▁";
      pipeline.splitsWords ||= step.split !== false;
      return true;
    default:
      return false;
  }
}

/** For places that are not split before the model: whether its pieces end there. */
function findReach(
  json: TokenizerJson,
  { space, newline }: Pipeline,
): { readonly words: boolean; readonly lines: boolean; readonly beforeSpace: ReadonlySet<string> } {
  const beforeSpace = new Set<string>();
  const model = bpe.safeParse(json.model).data;
  if (model === undefined) return { words: false, lines: false, beforeSpace };
  const { vocab, byte_fallback: fallsBack } = model;
  const isKnown = (piece: string) => Object.hasOwn(vocab, piece);
  for (let unit = SPACE + 1; unit < 0x7f; unit++) {
    if (!isKnown(String.fromCharCode(unit))) beforeSpace.add(String.fromCharCode(unit));
  }
  const breaks = isKnown(newline) ? newline : fallsBack && isKnown("<0x0A>") ? "<0x0A>" : undefined;
  let lines = breaks !== undefined;
  for (const piece of Object.keys(vocab)) {
    for (let at = piece.indexOf(space, 1); at !== -1; at = piece.indexOf(space, at + 1))
      beforeSpace.add(piece[at - 1]!);
    if (breaks === undefined) continue;
    const [, ...behindBreaks] = piece.split(breaks);
    if (behindBreaks.some((part) => part !== "")) lines = false;
  }
  return { words: isKnown(space), lines, beforeSpace };
}
