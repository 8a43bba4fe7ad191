/** The unit for systemd, by its own tools where they are installed. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { configOptions } from "../../src/config/schema.ts";

const UNIT = "deploy/systemd/densemamba.service";
/** Of 100; systemd calls up to 49 medium, and up to 19 good. */
const MAX_EXPOSURE = 15;
const text = readFileSync(UNIT, "utf8");
const settingOf = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(text)![1]!;

it("has only options that there are, and exit codes and times that fit the server's own", () => {
  const known = configOptions.flatMap(({ variable, isSecret }) =>
    isSecret ? [variable, `${variable}_FILE`] : [variable],
  );
  const given = [...text.matchAll(/^Environment=(DENSEMAMBA_\w+)=/gm)].map(([, name]) => name!);
  expect(given.length).toBeGreaterThan(2);
  expect(given.filter((name) => !known.includes(name))).toEqual([]);
  expect(readFileSync("docs/configuration.md", "utf8")).toContain(
    `| ${settingOf("RestartPreventExitStatus")} | the command line`,
  );
  const shutdownMs = Number(configOptions.find(({ key }) => key === "shutdownMs")!.shownDefault);
  // The server ends at most four seconds later.
  expect(Number(settingOf("TimeoutStopSec")) * 1000).toBeGreaterThan(shutdownMs + 4000);
});

const hasTools = spawnSync("systemd-analyze", ["--version"], { timeout: 20_000 }).status === 0;

describe.skipIf(!hasTools)(`systemd-analyze${hasTools ? "" : " (skipped: it is not installed)"}`, () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "densemamba-unit-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const analyze = (...args: string[]) => {
    const { status, stdout, stderr } = spawnSync("systemd-analyze", args, { encoding: "utf8", timeout: 60_000 });
    return { status, said: stdout + stderr };
  };

  it("finds nothing wrong with the unit", async () => {
    const file = path.join(folder, "densemamba.service");
    await writeFile(file, text.replace(/^ExecStart=\S+/m, `ExecStart=${process.execPath}`));
    const { status, said } = analyze("verify", file);
    expect(said).not.toContain("densemamba.service");
    expect(status).toBe(0);
  });

  it("calls its exposure small", () => {
    const { status, said } = analyze("security", "--offline=true", `--threshold=${MAX_EXPOSURE}`, UNIT);
    expect(status, said).toBe(0);
  });
});
