/** Binds a call's arguments to parameters as Python does. */
import { TemplateError } from "./error.ts";
import type { Arguments, Value } from "./values.ts";
import { integerIn, typeOf } from "./values.ts";

/**
 * @param parameters their names; those after `/` can be given by name, and those before `?` are
 * required
 * @returns one for each parameter, undefined where none was given
 */
export function bind(name: string, parameters: string, { args, kwargs }: Arguments): (Value | undefined)[] {
  const { names, numRequired, numPositional } = parse(parameters);
  if (args.length > names.length) {
    throw new TemplateError(`${name}() takes at most ${names.length} arguments (${args.length} given)`);
  }
  const bound: (Value | undefined)[] = [...args];
  for (const [key, value] of kwargs) {
    const at = names.indexOf(key);
    if (at < numPositional) throw new TemplateError(`${name}() takes no keyword argument '${key}'`);
    if (bound[at] !== undefined) throw new TemplateError(`${name}() got multiple values for argument '${key}'`);
    bound[at] = value;
  }
  for (let i = 0; i < numRequired; i++) {
    if (bound[i] === undefined) throw new TemplateError(`${name}() is missing the argument '${names[i]}'`);
  }
  return bound;
}

interface Parameters {
  readonly names: readonly string[];
  readonly numRequired: number;
  readonly numPositional: number;
}

/** `a b ? c / d`: a and b are required, only d may be given by name. */
function parse(parameters: string): Parameters {
  const names: string[] = [];
  let numRequired: number | undefined;
  let numPositional = parameters.includes("/") ? undefined : 0;
  for (const word of parameters.split(" ")) {
    if (word === "?") numRequired = names.length;
    else if (word === "/") numPositional = names.length;
    else if (word !== "") names.push(word);
  }
  numPositional ??= 0;
  return { names, numRequired: numRequired ?? names.length, numPositional };
}

export function textArgument(value: Value | undefined, what: string): string {
  if (typeof value === "string") return value;
  throw new TemplateError(`${what} must be str, not ${value === undefined ? "missing" : typeOf(value)}`);
}

export function integerArgument(value: Value | undefined, fallback: number, what: string): number {
  if (value === undefined) return fallback;
  const integer = integerIn(value);
  if (integer === undefined) throw new TemplateError(`${what} must be an integer, not ${typeOf(value)}`);
  return integer;
}
