/** `POST /v1/completions` */
import type { App } from "../context.ts";
import type { ServerDeps } from "../deps.ts";
import { readJson } from "../http/body.ts";
import { answerJson } from "../http/json-answer.ts";
import { ChoiceStream } from "../openai/choice-stream.ts";
import { completionBody, toCompletionTask } from "../openai/completions.ts";
import { fold } from "../openai/fold.ts";
import { checkModel } from "../openai/models.ts";
import { CompletionChunks, completionAnswer } from "../openai/render-completions.ts";
import type { Emit } from "../openai/renderer.ts";
import { parseBody } from "../openai/validate.ts";
import { answerHead, answerSse, boundsOf, generateFor } from "./generate.ts";

export function completionRoutes(app: App, deps: ServerDeps): void {
  const bounds = boundsOf(deps);
  const schema = completionBody(bounds);
  const tokenText = (id: number) => deps.generator.tokenizer.tokenText(id);

  app.post("/v1/completions", async (context) => {
    const body = parseBody(schema, await readJson(context, deps), deps.log);
    checkModel(body.model, deps.model);
    const task = toCompletionTask(body, bounds);
    const head = answerHead(deps, "cmpl");
    if (task.stream) {
      const renderer = (emit: Emit) => new ChoiceStream(new CompletionChunks(head, task, tokenText), emit);
      return answerSse(context, deps, task.request, renderer);
    }
    const folded = await fold(generateFor(context, deps, task.request), deps.generator.tokenizer);
    context.set("usage", folded.usage);
    return answerJson(context, deps.options, completionAnswer(head, task, folded, tokenText));
  });
}
