/**
 * `POST /v1/embeddings`, OpenAI's: a vector of length 1 for each text, made of the model's hidden
 * states. Knows nothing of how they are pooled.
 */
import * as z from "zod";
import type { EmbedRequest } from "../../generation/events.ts";
import type { App, ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { answerJson } from "../http/json-answer.ts";
import { type Bounds, boundsOf, checkModel, defined, ignoredFields, truncatedLength } from "../openai/fields.ts";
import { LazyList } from "../openai/json-writer.ts";
import { REFUSED_ON_EMBEDDINGS } from "../openai/refused-fields.ts";
import { invalid, parseBody, refusals } from "../openai/validate.ts";
import { parsePrompts } from "./completions.ts";

/** As OpenAI has it. */
const MAX_INPUTS = 2048;

export function embeddingRoutes(app: App, deps: ServerDeps): void {
  const schema = embeddingsBody(boundsOf(deps), deps.model.manifest.sizes.hiddenSize);

  app.post("/v1/embeddings", async (context) => {
    const body = parseBody(schema, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const request = toEmbedRequest(body);
    const { signal } = context.req.raw;
    const { numTokens, vectors } = await deps.generator.embed({ ...request, owner: context.get("owner"), signal });
    const write = body.encoding_format === "base64" ? toBase64 : toNumbers;
    return answerJson(context, deps.options, {
      object: "list",
      data: new LazyList(function* () {
        for (const [index, vector] of vectors.entries()) {
          yield { object: "embedding", index, embedding: write(unit(vector.subarray(0, body.dimensions))) };
        }
      }),
      model: deps.model.name,
      usage: { prompt_tokens: numTokens, total_tokens: numTokens },
    });
  });
}

export function embeddingsBody(bounds: Bounds, hiddenSize: number) {
  const { user } = ignoredFields();
  const schema = z.object({
    model: z.string().optional(),
    input: z.unknown().transform((value, context) => parsePrompts(value, context, bounds, MAX_INPUTS)),
    dimensions: z.int().min(1).max(hiddenSize).optional(),
    encoding_format: z.enum(["float", "base64"]).optional(),
    pooling: z.enum(["mean", "last"]).optional(),
    add_special_tokens: z.boolean().optional(),
    truncate_prompt_tokens: truncatedLength(bounds).optional(),
    truncation_side: z.enum(["left", "right"]).optional(),
    user,
  });
  return schema.register(refusals, REFUSED_ON_EMBEDDINGS);
}

/** @throws `invalid_value` if the input is empty */
function toEmbedRequest(body: z.output<ReturnType<typeof embeddingsBody>>): Omit<EmbedRequest, "owner" | "signal"> {
  const [first] = body.input;
  if (first?.type === "text" && first.text === "") throw invalid("input", "must not be empty");
  return {
    names: { prompts: "input", maxTokens: "max_tokens", numLogprobs: "logprobs" },
    prompts: body.input,
    pooling: body.pooling ?? "mean",
    addSpecialTokens: body.add_special_tokens ?? true,
    ...defined({ truncatePromptTokens: body.truncate_prompt_tokens, truncationSide: body.truncation_side }),
  };
}

/** Of length 1; zeros stay zeros. */
function unit(vector: Float32Array): Float32Array {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return length === 0 ? vector : vector.map((value) => value / length);
}

/** With the digits that tell numbers of 32 bits apart. */
function toNumbers(vector: Float32Array): number[] {
  return Array.from(vector, (value) => Number(value.toPrecision(9)));
}

/** Little-endian. */
function toBase64({ buffer, byteOffset, byteLength }: Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString("base64");
}
