/**
 * A request's prompts → token ids. Text and templates end here: the engine sees ids only.
 */
import { aboutField } from "../errors.ts";
import type { ResumedConversation } from "../sessions/lease.ts";
import { countTokens } from "../sessions/stores/snapshot.ts";
import type { ChatRenderer } from "../tokenizer/chat-template.ts";
import { ChatPreparer } from "./chat-prompts.ts";
import { checkTokenIds } from "./check-request.ts";
import type { Prompt } from "./events.ts";
import {
  encodeContinuation,
  type PreparedPrompt,
  PromptAssembler,
  type PromptContext,
  type PromptOptions,
} from "./prompts.ts";

export interface PreparerContext extends PromptContext {
  readonly renderer: ChatRenderer;
  readonly vocabSize: number;
}

export class PromptPreparer {
  readonly #context: PreparerContext;
  readonly #options: PromptOptions;
  readonly #assembler: PromptAssembler;
  readonly #resumed: ResumedConversation | undefined;

  constructor(context: PreparerContext, options: PromptOptions, resumed: ResumedConversation | undefined) {
    this.#context = context;
    this.#options = options;
    this.#assembler = new PromptAssembler(context, options, resumed?.loadStart);
    // Nothing has been said before: its state is what the prompt begins from.
    this.#resumed = resumed && countTokens(resumed.snapshot) > 0 ? resumed : undefined;
  }

  /**
   * @throws `invalid_value`, `prompt_too_long`, `invalid_checkpoint` (the model's template is
   * malformed)
   */
  async prepare(prompt: Prompt): Promise<PreparedPrompt> {
    try {
      switch (prompt.type) {
        case "text":
          return await this.#prepareText(prompt.text);
        case "tokens":
          return await this.#prepareTokens(prompt.tokenIds);
        case "chat":
          return await new ChatPreparer(this.#context.renderer, this.#assembler, prompt, this.#resumed).prepare();
      }
    } catch (error) {
      throw aboutField(error, this.#options.names.prompts); // the tokenizer's
    }
  }

  async #prepareText(text: string): Promise<PreparedPrompt> {
    const { tokenizer } = this.#context;
    const { encodeLimits } = this.#assembler;
    const resumed = this.#resumed;
    const { addSpecialTokens } = this.#options;
    const ids = resumed
      ? await encodeContinuation(tokenizer, text, encodeLimits)
      : await tokenizer.encode(text, { ...encodeLimits, addSpecialTokens });
    return this.#assembler.assemble(ids, { resumed, text, conversation: { type: "completion" } });
  }

  #prepareTokens(tokenIds: readonly number[]): Promise<PreparedPrompt> {
    checkTokenIds(tokenIds, this.#context.vocabSize, this.#options.names.prompts);
    const conversation = { type: "completion" } as const;
    return this.#assembler.assemble(tokenIds, { resumed: this.#resumed, isGivenAsTokens: true, conversation });
  }
}
