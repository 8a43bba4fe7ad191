/** Numbers on the command line, for options that belong to one command and not to the configuration. */
import { InvalidArgumentError } from "commander";

/** A parser for commander. */
export function numberBetween(min: number, max: number, kind: "integer" | "number" = "number") {
  return (text: string): number => {
    const value = /^\s*$/.test(text) ? Number.NaN : Number(text);
    if (value >= min && value <= max && (kind === "number" || Number.isInteger(value))) return value;
    throw new InvalidArgumentError(`Must be ${kind === "integer" ? "an integer" : "a number"} from ${min} to ${max}.`);
  };
}
