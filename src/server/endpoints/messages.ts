/** `POST /v1/messages` and `POST /v1/messages/count_tokens`: Anthropic's API. */
import type { App, ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { MessageEvents, messageAnswer } from "../messages/answer.ts";
import { countBody, messagesBody, promptRequest, toMessagesTask } from "../messages/request.ts";
import { boundsOf, checkModel } from "../openai/fields.ts";
import { parseBody } from "../openai/validate.ts";
import { answerGeneration } from "./generate.ts";

export function messageRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const [messages, count] = [messagesBody(bounds), countBody()];

  app.post("/v1/messages", async (context) => {
    const body = parseBody(messages, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const head = { id: `msg_${deps.newId()}`, model: deps.model.name };
    return answerGeneration(context, deps, toMessagesTask(body, bounds), {
      renderer: (stream) => new MessageEvents(head, (type, json) => stream.event(type, json)),
      answer: (collected) => messageAnswer(head, collected),
    });
  });

  app.post("/v1/messages/count_tokens", async (context) => {
    const body = parseBody(count, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const [owner, { signal }] = [context.get("owner"), context.req.raw];
    const { numTokens } = await deps.generator.encodePrompt({ ...promptRequest(body), owner, signal });
    return context.json({ input_tokens: numTokens });
  });
}
