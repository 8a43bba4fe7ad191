/** Joins the event streams of a request's choices into one, in the order in which events come. */
import type { Choice } from "./choice.ts";
import type { GenerationEvent } from "./events.ts";

/** Beyond so many events that have not been taken, the choices' own queues fill, and the engine suspends them. */
const MAX_UNTAKEN = 64;

/** Ends when all have ended. The first failure fails the whole; the caller aborts the others then. */
export function mergeChoices(choices: readonly Choice[]): AsyncIterable<GenerationEvent> {
  // Nearly every request has one choice: no queue, no second promise per token.
  return choices.length === 1 ? single(choices[0]!) : several(choices);
}

async function* single(choice: Choice): AsyncGenerator<GenerationEvent> {
  const out: GenerationEvent[] = [];
  for await (const event of choice.events) {
    out.length = 0;
    choice.accept(event, out);
    for (const made of out) yield made;
  }
}

async function* several(choices: readonly Choice[]): AsyncGenerator<GenerationEvent> {
  let out: GenerationEvent[] = [];
  let numOpen = choices.length;
  let failure: { readonly error: unknown } | undefined;
  let wake: () => void = () => {};
  /** Pumps that wait until what there is has been taken. */
  const held: (() => void)[] = [];

  const pump = async (choice: Choice): Promise<void> => {
    try {
      for await (const event of choice.events) {
        choice.accept(event, out);
        wake();
        if (out.length >= MAX_UNTAKEN) await new Promise<void>((resolve) => held.push(resolve));
      }
    } catch (error) {
      failure ??= { error };
    } finally {
      numOpen--;
      wake();
    }
  };
  for (const choice of choices) void pump(choice);

  while (true) {
    const ready = out;
    out = [];
    yield* ready;
    for (const resume of held.splice(0)) resume();
    if (failure) throw failure.error;
    if (out.length > 0) continue;
    if (numOpen === 0) return;
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
}
