/** How the program ends when something went wrong: one line on stderr that says what, and an exit code. */
import { DenseMambaError } from "../errors.ts";

/** 2 for what is wrong with the command line or the configuration, 1 for everything else. */
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
  if (isOutOfFiles(error)) return { message: `error: ${outOfFiles(error)}`, exitCode: 1 };
  // The system's own errors (EACCES, ENOSPC, …) say what happened; anything else is a bug, and its stack is needed.
  if (error instanceof Error && "code" in error) return { message: `error: ${error.message}`, exitCode: 1 };
  return { message: `error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`, exitCode: 1 };
}

/** A configuration may have several problems, one a line. */
function listProblems(message: string): string {
  const lines = message.split("\n");
  return lines.length === 1 ? message : `${lines.length} problems\n  ${lines.join("\n  ")}`;
}

/** Needed to start: 90 to 100 were measured, for modules that Node reads at the same time. */
const MIN_OPEN_FILES = 128;

function isOutOfFiles(error: unknown): error is Error {
  return error instanceof Error && "code" in error && error.code === "EMFILE";
}

function outOfFiles({ message }: Error): string {
  const { userLimits } = (process.report?.getReport() ?? {}) as { userLimits?: { open_files?: { soft?: unknown } } };
  const given = userLimits?.open_files?.soft ?? "too few";
  return `${message}: this process may have ${given} files open at once; it needs at least ${MIN_OPEN_FILES}, and one for each connection (ulimit -n, LimitNOFILE)`;
}
