/**
 * The training text that models/recipes composes: its own check, which needs nothing but Python.
 */
import { spawnSync } from "node:child_process";
import { expect, it } from "vitest";

const python = (...args: string[]) => spawnSync("python3", args, { encoding: "utf8", timeout: 100_000 });
const hasPython = python("-c", "import sys; sys.exit(sys.version_info < (3, 9))").status === 0;

it.skipIf(!hasPython)(
  "is well-formed, the same for a seed, and keeps out what the model is judged by",
  { timeout: 60_000 },
  () => {
    const { status, stdout, stderr } = python("-B", "models/recipes/checks/made.py", "--count", "400");
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(stdout).toMatch(
      /^400 tales with \d+ beginnings of five words, 400 dialogues with \d+ answers: well-formed\n$/,
    );
  },
);
