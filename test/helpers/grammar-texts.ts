/** What grammar tests share: whether a constraint's grammar matches a text, byte by byte. */
import { Automaton } from "../../src/grammar/automaton.ts";
import type { Constraint } from "../../src/grammar/constraint.ts";
import { constraintGrammar, type ReasoningPrefix } from "../../src/grammar/constraint-grammar.ts";
import { stepAll } from "../../src/grammar/grammar-matcher.ts";
import { compileProgram } from "../../src/grammar/program.ts";

/** `whole`, `part` (of a longer text that matches) or `none`. */
export type Match = "whole" | "part" | "none";

export function matcherOf(constraint: Constraint, reasoning?: ReasoningPrefix): (text: string | Uint8Array) => Match {
  const automaton = new Automaton(compileProgram(constraintGrammar(constraint, reasoning)));
  const start = automaton.start();
  return (text) => {
    const bytes = typeof text === "string" ? Buffer.from(text, "utf8") : text;
    const state = stepAll(automaton, start, bytes);
    if (state === undefined) return "none";
    return state.mayEnd ? "whole" : "part";
  };
}
