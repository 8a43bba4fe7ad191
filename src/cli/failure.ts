/** How the program ends after an error: a line on stderr that says what is wrong, an exit code. */
import { DenseMambaError, type ErrorCode } from "../errors.ts";

/**
 * 2 for mistakes on the command line or in the configuration, 75 (EX_TEMPFAIL of sysexits.h) for a
 * folder that another server holds, which may be over soon, 1 for everything else.
 */
export interface Failure {
  /** For stderr; undefined if it has been reported. */
  readonly message: string | undefined;
  readonly exitCode: 1 | 2 | 75;
}

/** Has been logged already. */
export class LoggedFailure extends Error {
  readonly exitCode: Failure["exitCode"];

  constructor(cause: unknown, { exitCode }: Failure) {
    super("logged already", { cause });
    this.exitCode = exitCode;
  }
}

const EXIT_CODES: { readonly [Code in ErrorCode]?: Failure["exitCode"] } = { invalid_config: 2, store_in_use: 75 };

export function describeFailure(error: unknown): Failure {
  if (error instanceof LoggedFailure) return { message: undefined, exitCode: error.exitCode };
  if (error instanceof DenseMambaError) {
    const isConfig = error.code === "invalid_config";
    const text = isConfig ? listProblems(error.message) : error.message.replaceAll(/\s*\n\s*/g, " ");
    return { message: `error: ${error.code}: ${text}`, exitCode: EXIT_CODES[error.code] ?? 1 };
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
