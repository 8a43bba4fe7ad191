/**
 * A tokenizer's decoder as rules for one piece: its text or bytes in the middle of a text, and how
 * many spaces are removed at the beginning. This makes decoding a table lookup and streaming exact.
 * Decoders whose output for a piece depends on later pieces are refused. Knows no ids.
 */
import { DenseMambaError } from "../errors.ts";
import type { TokenizerComponent } from "./files.ts";

export interface DecoderRules {
  /**
   * A piece of the vocabulary (or the content of an added token) → its text, before bytes are
   * decoded. The first piece of a text may differ.
   */
  readonly rewrite: (piece: string, isFirst: boolean) => string;
  /**
   * `byteLevel`: each character is a byte. `byteFallback`: the pieces `<0x00>` … `<0xFF>` are
   * bytes.
   */
  readonly bytes: "none" | "byteLevel" | "byteFallback";
  /** How many spaces are removed from the beginning of a text, if there are that many. */
  readonly numSpacesStripped: number;
}

const NO_RULES: DecoderRules = { rewrite: (piece) => piece, bytes: "none", numSpacesStripped: 0 };

/** @throws `invalid_checkpoint` for a decoder that is not implemented */
export function parseDecoderRules(decoder: TokenizerComponent | null | undefined): DecoderRules {
  // Without a decoder, pieces are words, joined by spaces.
  if (decoder === null || decoder === undefined) {
    return { ...NO_RULES, rewrite: (piece, isFirst) => (isFirst ? piece : ` ${piece}`) };
  }
  return compose(decoder.type === "Sequence" ? sequenceOf(decoder) : [decoder]);
}

function compose(steps: readonly TokenizerComponent[]): DecoderRules {
  let rules = NO_RULES;
  let fused = false;
  for (const step of steps) {
    // NOTE: after Fuse the text is one string: a step for pieces would apply to the whole text.
    if (fused && step.type !== "Strip") throw unsupported(`${step.type} after Fuse`);
    // Bytes are decoded once they are joined.
    const isLate = step.type !== "Fuse" && step.type !== "Strip";
    if (rules.bytes !== "none" && isLate && (rules.bytes === "byteLevel" || step.type !== "Metaspace")) {
      throw unsupported(`${step.type} after ${rules.bytes === "byteLevel" ? "ByteLevel" : "ByteFallback"}`);
    }
    const before = rules.rewrite;
    switch (step.type) {
      case "ByteLevel":
        rules = { ...rules, bytes: "byteLevel" };
        break;
      case "ByteFallback":
        rules = { ...rules, bytes: "byteFallback" };
        break;
      case "Fuse":
        fused = true;
        break;
      case "Replace": {
        const pattern = patternOf(step);
        const content = String(step.content ?? "");
        rules = { ...rules, rewrite: (...given) => before(...given).replaceAll(pattern, () => content) };
        break;
      }
      case "Strip": {
        if (step.content !== " " || Number(step.stop ?? 0) !== 0) throw unsupported("Strip other than of first spaces");
        if (!fused) throw unsupported("Strip before Fuse");
        rules = { ...rules, numSpacesStripped: Number(step.start ?? 0) };
        break;
      }
      case "Metaspace": {
        const mark = String(step.replacement ?? "▁");
        const prepends = step.prepend_scheme !== "never" && step.add_prefix_space !== false;
        rules = {
          ...rules,
          rewrite: (piece, isFirst) => before(piece, isFirst).replaceAll(mark, isFirst && prepends ? "" : " "),
        };
        break;
      }
      case "WordPiece": {
        const prefix = String(step.prefix ?? "##");
        const tidy = step.cleanup === false ? (text: string) => text : tidyPunctuation;
        rules = {
          ...rules,
          rewrite: (piece, isFirst) => {
            const text = before(piece, isFirst);
            if (isFirst) return tidy(text);
            return tidy(text.startsWith(prefix) ? text.slice(prefix.length) : ` ${text}`);
          },
        };
        break;
      }
      default:
        throw unsupported(step.type);
    }
  }
  return rules;
}

function sequenceOf(decoder: TokenizerComponent): TokenizerComponent[] {
  const steps: unknown = decoder.decoders;
  const isStep = (step: unknown): step is TokenizerComponent =>
    typeof step === "object" && step !== null && typeof (step as { type?: unknown }).type === "string";
  if (!Array.isArray(steps) || !steps.every(isStep)) throw unsupported("a Sequence without a list of decoders");
  return steps.flatMap((step) => (step.type === "Sequence" ? sequenceOf(step) : [step]));
}

function patternOf(step: TokenizerComponent): string | RegExp {
  const pattern = (step.pattern ?? {}) as { String?: unknown; Regex?: unknown };
  if (typeof pattern.String === "string") return pattern.String;
  if (typeof pattern.Regex !== "string") throw unsupported("Replace without a pattern");
  try {
    return new RegExp(pattern.Regex, "gu");
  } catch (error) {
    throw unsupported(`Replace by the regular expression ${pattern.Regex}`, error);
  }
}

/**
 * How the reference library's WordPiece decoder treats spaces before punctuation and English
 * contractions.
 */
function tidyPunctuation(text: string): string {
  return text
    .replaceAll(" .", ".")
    .replaceAll(" ?", "?")
    .replaceAll(" !", "!")
    .replaceAll(" ,", ",")
    .replaceAll(" ' ", "'")
    .replaceAll(" n't", "n't")
    .replaceAll(" 'm", "'m")
    .replaceAll(" do not", " don't")
    .replaceAll(" 's", "'s")
    .replaceAll(" 've", "'ve")
    .replaceAll(" 're", "'re");
}

function unsupported(what: string, cause?: unknown): DenseMambaError {
  return new DenseMambaError(
    "invalid_checkpoint",
    `tokenizer.json: the decoder ${what} is not supported; supported are ByteLevel, ByteFallback, Metaspace, WordPiece, Replace (these three before bytes come together), Fuse and Strip (start, after Fuse)`,
    { cause },
  );
}
