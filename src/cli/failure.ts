/** How the program ends after an error: a line on stderr that says what is wrong, an exit code. */
import { DenseMambaError } from "../errors.ts";

/** 2 for mistakes on the command line or in the configuration, 1 for everything else. */
export interface Failure {
  readonly message: string;
  readonly exitCode: 1 | 2;
}

export function describeFailure(error: unknown): Failure {
  if (error instanceof DenseMambaError) {
    const isConfig = error.code === "invalid_config";
    const text = isConfig ? listProblems(error.message) : error.message.replaceAll(/\s*\n\s*/g, " ");
    return { message: `error: ${error.code}: ${text}`, exitCode: isConfig ? 2 : 1 };
  }
  // The system's errors (EACCES, ENOSPC, …) explain themselves. Anything else is a bug, and needs
  // its stack.
  if (error instanceof Error && "code" in error) return { message: `error: ${error.message}`, exitCode: 1 };
  return { message: `error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`, exitCode: 1 };
}

/** A configuration may have several problems, one per line. */
function listProblems(message: string): string {
  const lines = message.split("\n");
  return lines.length === 1 ? message : `${lines.length} problems\n  ${lines.join("\n  ")}`;
}
