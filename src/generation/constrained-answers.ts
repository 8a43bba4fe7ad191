/**
 * A request's constraint → what holds each of its answers to it. An answer that continues earlier
 * content, as after an interruption, must match together with that content.
 */
import { DenseMambaError } from "../errors.ts";
import type { ReasoningPrefix } from "../grammar/constraint-grammar.ts";
import type { GrammarMatcher } from "../grammar/grammar-matcher.ts";
import type { Grammars } from "../grammar/grammars.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import type { GenerationRequest } from "./events.ts";
import type { PreparedPrompt } from "./prompts.ts";
import { ReasoningSplitter, type ReasoningStart } from "./reasoning.ts";

/** Before anything else is done. @throws `invalid_value`, `unsupported_value`, by the field's path */
export function checkConstraint(grammars: Grammars, request: GenerationRequest): void {
  aboutConstraint(request, () => grammars.compile(request.constraint!));
}

/** @returns for each prompt, what makes a matcher for each of its answers */
export async function openMatchers(
  grammars: Grammars,
  request: GenerationRequest,
  parts: {
    readonly prompts: readonly PreparedPrompt[];
    readonly tokenizer: Tokenizer;
    readonly stopTokenIds: ReadonlySet<number>;
  },
): Promise<(() => GrammarMatcher)[]> {
  const { prompts, tokenizer, stopTokenIds } = parts;
  // A stop token of the client's that is text is allowed where its text is.
  const isEnd = (id: number) => !request.stopTokenIds.includes(id) || tokenizer.specialIds.has(id);
  const endIds = [...stopTokenIds].filter(isEnd);
  const makers: (() => GrammarMatcher)[] = [];
  for (const { reasoning, continued } of prompts) {
    if (continued === undefined) {
      throw new DenseMambaError(
        "invalid_value",
        `${request.names.prompts} must not be empty here: a constrained answer can only go on with one that had a seed`,
        { param: request.names.prompts },
      );
    }
    const grammar = aboutConstraint(request, () => {
      return grammars.compile(request.constraint!, reasoning && reasoningPrefix(reasoning));
    });
    try {
      makers.push(await grammars.open(grammar, continued, endIds));
    } catch (error) {
      throw named(request, error);
    }
  }
  return makers;
}

/** Undefined: the content has begun. */
function reasoningPrefix(start: ReasoningStart): ReasoningPrefix | undefined {
  const { open, close } = start.tags;
  switch (new ReasoningSplitter(start).phase) {
    case "content":
      return undefined;
    case "reasoning":
      return { open: "", close };
    case "undecided":
      return { open: open.slice(start.seed.trimStart().length), close };
  }
}

function aboutConstraint<Result>(request: GenerationRequest, work: () => Result): Result {
  try {
    return work();
  } catch (error) {
    throw named(request, error);
  }
}

function named({ names: { constraint: field = "constraint" } }: GenerationRequest, error: unknown): unknown {
  if (!(error instanceof DenseMambaError)) return error;
  const { param: path = "" } = error;
  // Of a tag it is a name already.
  const param = /^\w/.test(path) ? path : field + path;
  return new DenseMambaError(error.code, `${param} ${error.message}`, { param, cause: error });
}
