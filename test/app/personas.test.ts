/** `--persona NAME=FILE`. */
import { rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { loadPersonas } from "../../src/app/personas.ts";
import { loadConfig } from "../../src/config/load.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";

const FILE = "test/fixtures/rwkv7-tiny/persona.pth";
const state = [0, 1, 2].flatMap((layer) => [
  { name: `att_shift.${layer}`, shape: [1, 32] },
  { name: `wkv.${layer}`, shape: [2, 16, 16] },
]);
const manifest = { ...fakeManifest(64), state };

let folder: string;
beforeEach(() => {
  folder = temporaryFolder();
});
afterEach(() => rm(folder, { recursive: true }));

const warnings: string[] = [];
const log = {
  debug() {},
  info() {},
  error() {},
  warn: (fields: object) => void warnings.push((fields as { error: string }).error),
};

const load = (personas: string | string[], isOnly = true) => {
  const config = loadConfig({ flags: { personas }, env: {} });
  return loadPersonas(config, manifest, { isOnly, log, nowMs: () => 1 });
};

it("are read at the start, by their names", async () => {
  const personas = await load([`pirate=${FILE}`, `bard=./${FILE}`]);
  expect([...personas.keys()]).toEqual(["pirate", "bard"]);
  expect(personas.get("pirate")).toMatchObject({ position: 0, tokenIds: [], modelHash: manifest.modelHash });
});

it("that are malformed, missing, of another model, or twice the same, stop the start with their names", async () => {
  expect(() => load(FILE)).toThrow(/--?persona|personas.*NAME=/);
  await expect(load(`a=${folder}/nope`)).rejects.toMatchObject({
    code: "invalid_config",
    message: expect.stringContaining(`--persona a=${folder}/nope: ENOENT`),
  });
  const text = path.join(folder, "text");
  await writeFile(text, "You are a pirate.");
  await expect(load(`a=${text}`)).rejects.toThrow(`--persona a=${text}: persona a: the header claims`);
  await expect(load([`a=${FILE}`, `a=${FILE}`])).rejects.toThrow("another persona has this name");
});

it("of another of several models are left out", async () => {
  const text = path.join(folder, "text");
  await writeFile(text, "You are a pirate.");
  expect([...(await load([`a=${text}`, `b=${FILE}`], false)).keys()]).toEqual(["b"]);
  expect(warnings).toEqual([expect.stringContaining("the header claims")]);
});
