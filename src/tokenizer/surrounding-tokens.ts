/**
 * The special tokens around every encoded text. They are read from the post-processor and added
 * here, because tokenizer_config.json may overrule it, which both libraries ignore.
 */
import { z } from "zod";
import { DenseMambaError } from "../errors.ts";
import type { TokenizerComponent, TokenizerFiles } from "./files.ts";

export interface SurroundingTokens {
  readonly prefix: readonly number[];
  readonly suffix: readonly number[];
}

const NONE: SurroundingTokens = { prefix: [], suffix: [] };

const template = z.looseObject({
  single: z.array(
    z.union([
      z.object({ SpecialToken: z.looseObject({ id: z.string() }) }),
      z.object({ Sequence: z.looseObject({ id: z.string() }) }),
    ]),
  ),
  special_tokens: z.record(z.string(), z.looseObject({ ids: z.array(z.int().min(0)) })),
});
const pair = z.tuple([z.string(), z.int().min(0)]);
const bert = z.looseObject({ sep: pair, cls: pair });
const sequence = z.looseObject({ processors: z.array(z.looseObject({ type: z.string() })) });

/** @throws `invalid_checkpoint` if the post-processor is malformed or unknown */
export function parseSurroundingTokens(
  files: TokenizerFiles,
  ids: { readonly bos: number | undefined; readonly eos: number | undefined },
): SurroundingTokens {
  const { prefix, suffix } = surroundingTokensOf(files.json.post_processor, files.path);
  return {
    prefix: overrule(prefix, files.addBosToken, ids.bos, (without, bos) => [bos, ...without]),
    suffix: overrule(suffix, files.addEosToken, ids.eos, (without, eos) => [...without, eos]),
  };
}

function surroundingTokensOf(processor: TokenizerComponent | null | undefined, path: string): SurroundingTokens {
  switch (processor?.type) {
    case undefined:
    case "ByteLevel": // only adjusts offsets
      return NONE;
    case "TemplateProcessing": {
      const { single, special_tokens: special } = parse(template, processor, path);
      const sides: { prefix: number[]; suffix: number[] } = { prefix: [], suffix: [] };
      let side: number[] = sides.prefix;
      for (const item of single) {
        if ("Sequence" in item) side = sides.suffix;
        else side.push(...(special[item.SpecialToken.id]?.ids ?? []));
      }
      return sides;
    }
    case "BertProcessing":
    case "RobertaProcessing": {
      const { cls, sep } = parse(bert, processor, path);
      return { prefix: [cls[1]], suffix: [sep[1]] };
    }
    case "Sequence": {
      const parts = parse(sequence, processor, path).processors.map((part) => surroundingTokensOf(part, path));
      // A later one wraps the result of the earlier ones.
      return parts.reduce(
        (inner, outer) => ({
          prefix: [...outer.prefix, ...inner.prefix],
          suffix: [...inner.suffix, ...outer.suffix],
        }),
        NONE,
      );
    }
    default:
      throw new DenseMambaError(
        "invalid_checkpoint",
        `${path}: the post-processor ${processor?.type} is not supported; supported are TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing and Sequence`,
      );
  }
}

function parse<Schema extends z.ZodType>(schema: Schema, processor: TokenizerComponent, path: string): z.infer<Schema> {
  const parsed = schema.safeParse(processor);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new DenseMambaError("invalid_checkpoint", `${path}: post_processor.${issue.path.join(".")}: ${issue.message}`, {
    cause: parsed.error,
  });
}

function overrule(
  ids: readonly number[],
  isWanted: boolean | undefined,
  id: number | undefined,
  add: (without: readonly number[], id: number) => readonly number[],
): readonly number[] {
  if (isWanted === undefined || id === undefined) return ids;
  const without = ids.filter((other) => other !== id);
  return isWanted ? add(without, id) : without;
}
