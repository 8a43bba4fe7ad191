/**
 * The HTTP statuses of errors are in one file: whoever wants to know what a code is answered with
 * looks there.
 */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";

const ROOT = "src/server";
const HOME = "openai/errors.ts";
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  // `/ready` answers with the engine's status, which is not an error.
  "endpoints/status.ts": ["503"],
  // Anthropic names errors by their statuses.
  "messages/errors.ts": ["401", "403", "404", "413", "429", "500", "503"],
  // The longest value in metadata.
  "responses/request.ts": ["512"],
};

const withoutComments = (text: string) => text.replaceAll(/\/\*[\s\S]*?\*\//g, "").replaceAll(/(^|\s)\/\/.*$/gm, "");

/** Numbers from 400 to 599 that stand alone, outside of names and longer numbers. */
const STATUS = /(?<![\w.])[45]\d\d(?![\w.])/g;

it("no other file of the server names a status of an error", () => {
  const files = readdirSync(ROOT, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".ts"));
  const found = files
    .map((file) => file.split(path.sep).join("/"))
    .filter((file) => file !== HOME)
    .flatMap((file) => {
      const statuses = withoutComments(readFileSync(path.join(ROOT, file), "utf8")).match(STATUS) ?? [];
      return statuses.filter((status) => !ALLOWED[file]?.includes(status)).map((status) => `${file}: ${status}`);
    });
  expect(found).toEqual([]);
  expect(readFileSync(path.join(ROOT, HOME), "utf8").match(STATUS)!.length).toBeGreaterThan(20);
});
