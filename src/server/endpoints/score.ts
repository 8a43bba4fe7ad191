/**
 * `POST /v1/score`, in vLLM's spelling: how likely each of several texts is after another one, or
 * after a session or response. What comes before is read once, and every text from its state.
 */
import * as z from "zod";
import type { Continuation, Prompt, ScoreRequest } from "../../generation/events.ts";
import type { ConversationKey } from "../../sessions/conversation-store.ts";
import type { App, ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { type Bounds, boundsOf, cacheSalt, checkModel, defined, sessionId } from "../openai/fields.ts";
import { finite } from "../openai/logprobs.ts";
import { REFUSED_ON_SCORE } from "../openai/refused-fields.ts";
import { invalid, parseBody, refusals } from "../openai/validate.ts";

export function scoreRoutes(app: App, deps: ServerDeps): void {
  const schema = scoreBody(boundsOf(deps));

  app.post("/v1/score", async (context) => {
    const body = parseBody(schema, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const request = toScoreRequest(body);
    const { signal } = context.req.raw;
    const { prompt, scores } = await deps.generator.score({ ...request, owner: context.get("owner"), signal });
    const numTokens = scores.reduce((sum, score) => sum + score.numTokens, prompt.numTokens);
    return context.json({
      id: `score-${deps.newId()}`,
      object: "list",
      created: Math.floor(deps.nowMs() / 1000),
      model: deps.model.name,
      data: scores.map(({ logprob, numTokens }, index) => ({
        index,
        object: "score",
        score: finite(logprob),
        num_tokens: numTokens,
      })),
      usage: {
        prompt_tokens: numTokens,
        completion_tokens: 0,
        total_tokens: numTokens,
        prompt_tokens_details: { cached_tokens: prompt.cachedTokens, cache_write_tokens: 0 },
      },
    });
  });
}

export function scoreBody({ maxChoices }: Bounds) {
  const text = z.string().min(1);
  const schema = z.object({
    model: z.string().optional(),
    text_1: z.string().optional(),
    text_2: z.union([text, z.array(text).min(1).max(maxChoices)]),
    session_id: sessionId().optional(),
    previous_response_id: z.string().min(1).max(128).optional(),
    add_special_tokens: z.boolean().optional(),
    cache_salt: cacheSalt().optional(),
  });
  return schema.register(refusals, REFUSED_ON_SCORE);
}

type ScoreBody = z.output<ReturnType<typeof scoreBody>>;

/** @throws `invalid_value` if fields contradict each other */
function toScoreRequest(body: ScoreBody): Omit<ScoreRequest, "owner" | "signal"> {
  const { text_1: text = "", text_2: texts, session_id, previous_response_id } = body;
  if (session_id !== undefined && previous_response_id !== undefined) {
    throw invalid("session_id", "can't be given together with previous_response_id");
  }
  const resumeFrom = keyOf(session_id, previous_response_id);
  if (text === "" && resumeFrom === undefined) throw invalid("text_1", "must not be empty");
  const continuations: Continuation[] =
    typeof texts === "string"
      ? [{ text: texts, param: "text_2" }]
      : texts.map((given, index) => ({ text: given, param: `text_2[${index}]` }));
  const prompt: Prompt = { type: "text", text };
  return {
    names: { prompts: "text_1", maxTokens: "max_tokens", numLogprobs: "logprobs" },
    prompts: [prompt],
    continuations,
    addSpecialTokens: body.add_special_tokens ?? true,
    ...defined({ resumeFrom, cacheSalt: body.cache_salt }),
  };
}

function keyOf(sessionId: string | undefined, responseId: string | undefined): ConversationKey | undefined {
  if (sessionId !== undefined) return { type: "session", id: sessionId };
  return responseId === undefined ? undefined : { type: "response", id: responseId };
}
