/** `POST /v1/chat/completions` */
import type { App } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { answerJson } from "../http/json-answer.ts";
import { chatBody, toChatTask } from "../openai/chat.ts";
import { ChoiceStream } from "../openai/choice-stream.ts";
import { fold } from "../openai/fold.ts";
import { checkModel } from "../openai/models.ts";
import { ChatChunks, chatAnswer } from "../openai/render-chat.ts";
import type { Emit } from "../openai/renderer.ts";
import { parseBody } from "../openai/validate.ts";
import { answerHead, answerSse, boundsOf, generateFor } from "./generate.ts";

export function chatRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const schema = chatBody(bounds);

  app.post("/v1/chat/completions", async (context) => {
    const body = parseBody(schema, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const task = toChatTask(body, bounds);
    const head = answerHead(deps, "chatcmpl");
    if (task.stream) {
      const renderer = (emit: Emit) => new ChoiceStream(new ChatChunks(head, task), emit);
      return answerSse(context, deps, task.request, renderer);
    }
    const folded = await fold(generateFor(context, deps, task.request), deps.generator.tokenizer);
    context.set("usage", folded.usage);
    return answerJson(context, deps.options, chatAnswer(head, task, folded));
  });
}
