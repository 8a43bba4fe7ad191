/** How the state suite times what it times, and where the suites' tables go. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { type BenchResult, DEFAULT_SUITES, SUITES } from "../../src/bench/bench.ts";
import { benchSections } from "../../src/bench/bench-section.ts";
import { replaceSection } from "../../src/bench/page/sections.ts";
import { withScratchDir } from "../../src/bench/scratch.ts";
import { dropFromCache, runTurn, session, turnOf } from "../../src/bench/suites/state-parts.ts";
import { measureRate } from "../../src/bench/suites/state-sessions.ts";
import type { GenerationEvent } from "../../src/generation/events.ts";

const PAGE = path.join(import.meta.dirname, "../../docs/performance.md");

describe("a turn", () => {
  const events: GenerationEvent[] = [
    { type: "accepted", prompts: [] },
    { type: "delta", index: 0, text: "a", tokenIds: [1] },
    { type: "delta", index: 0, text: "bc", tokenIds: [2, 3] },
    { type: "finished", index: 0, reason: "length" },
    { type: "usage", usage: { promptTokens: 9, cachedTokens: 8, completionTokens: 3, stateBytes: 1 } },
  ];
  const generator = {
    async *generate() {
      yield* events;
    },
  };

  it("counts its tokens, and tells how much was not read again", async () => {
    let numTokens = 0;
    const request = turnOf({ type: "tokens", tokenIds: [1] }, { maxTokens: 3, resumeFrom: session("s") });
    const turn = await runTurn(generator, request, () => numTokens++);
    expect(numTokens).toBe(3);
    expect(turn).toMatchObject({ cachedTokens: 8, text: "abc" });
    expect(turn.firstTokenMs).toBeLessThanOrEqual(turn.totalMs);
  });

  it("is the same work each time: greedy, to its full length", () => {
    const request = turnOf({ type: "tokens", tokenIds: [] }, { maxTokens: 5, keepAs: session("s") });
    expect(request).toMatchObject({ ignoreEos: true, maxTokens: 5, keepAs: { type: "session", id: "s" } });
    expect(request.sampling.temperature).toBe(0);
  });
});

describe("a rate", () => {
  it("is taken from a load that is told when it is enough", async () => {
    let numTokens = 0;
    const rate = await measureRate(async (onToken, isOver) => {
      while (!isOver.aborted) {
        await new Promise((resolve) => setImmediate(resolve));
        onToken();
        numTokens++;
      }
    }, 50);
    expect(numTokens).toBe(55); // a tenth before it counts
    expect(rate).toBeGreaterThan(0);
  });
});

describe("a scratch folder", () => {
  it("is gone afterwards, whatever became of the suite, and leaves no listeners", async () => {
    const cacheDir = await mkdtemp(path.join(tmpdir(), "scratch-"));
    const numListeners = process.listenerCount("exit") + process.listenerCount("SIGINT");
    try {
      const fails = withScratchDir(cacheDir, "states", async (dir) => {
        await writeFile(path.join(dir, "state"), "kept");
        throw new Error("a suite that failed");
      });
      await expect(fails).rejects.toThrow("a suite that failed");
      expect(await readdir(path.join(cacheDir, "bench"))).toEqual([]);
      expect(process.listenerCount("exit") + process.listenerCount("SIGINT")).toBe(numListeners);
    } finally {
      await rm(cacheDir, { recursive: true });
    }
  });

  it("is gone after a signal, too", async () => {
    const cacheDir = await mkdtemp(path.join(tmpdir(), "scratch-"));
    const module = pathToFileURL(path.join(import.meta.dirname, "../../src/bench/scratch.ts")).href;
    const script = `const { withScratchDir } = await import(${JSON.stringify(module)});
      await withScratchDir(${JSON.stringify(cacheDir)}, "states", () => new Promise((resolve) => {
        setTimeout(resolve, 60_000);
        console.log("in it");
      }));`;
    try {
      const child = spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", script]);
      const exited = once(child, "exit");
      await once(child.stdout, "data");
      expect(await readdir(path.join(cacheDir, "bench"))).toHaveLength(1);
      child.kill("SIGTERM");
      await exited;
      expect(await readdir(path.join(cacheDir, "bench"))).toEqual([]);
    } finally {
      await rm(cacheDir, { recursive: true });
    }
  });
});

describe("a file out of the cache", () => {
  it("is still the same file", async () => {
    const dir = await mkdtemp(path.join(tmpdir(), "uncached-"));
    try {
      const file = path.join(dir, "state");
      await writeFile(file, "kept");
      dropFromCache(file);
      expect(await readFile(file, "utf8")).toBe("kept");
    } finally {
      await rm(dir, { recursive: true });
    }
  });
});

describe("the page", () => {
  const figure = { name: "f", value: 1, unit: "x" };
  const machine: BenchResult["machine"] = {
    date: "2026-01-01T00:00:00.000Z",
    cpu: "",
    numCpus: 1,
    instructions: "",
    memoryGiB: 1,
    os: "",
    threads: 1,
    versions: {},
    busyShare: 0,
  };
  const result = (...suites: string[]): BenchResult => ({
    machine,
    suites: Object.fromEntries(["machine", ...suites].map((suite) => [suite, [figure]])),
  });

  it("has the suites that are run by themselves in sections of their own, each with the machine's bandwidth", () => {
    const sections = benchSections(result("streams", "state", "shape", "soak"));
    expect(sections.map(({ name }) => name)).toEqual(["bench", "state", "soak"]);
    for (const { markdown } of sections) expect(markdown).toContain("| machine ");
    expect(sections[0]!.markdown).toContain("| shape ");
    expect(sections[0]!.markdown).not.toContain("| state ");
    expect(Object.keys(JSON.parse(sections[1]!.files["result.json"]!).suites)).toEqual(["machine", "state"]);
  });

  it("keeps the other sections as they are", () => {
    expect(benchSections(result("state")).map(({ name }) => name)).toEqual(["state"]);
  });

  it("has a place for every suite", async () => {
    const page = await readFile(PAGE, "utf8");
    for (const { name } of benchSections(result(...SUITES)))
      expect(replaceSection(page, name, "x"), name).toBeDefined();
  });

  it("is not asked for what takes many minutes unless it is named", () => {
    expect(SUITES.filter((suite) => !DEFAULT_SUITES.includes(suite))).toEqual(["million", "length", "state", "soak"]);
  });
});
