/**
 * The dashboard for Grafana: every query, asked of a real Prometheus that scrapes a real server
 * which is used.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { queryOf, ROWS, renderDashboard } from "../../deploy/grafana/dashboard.ts";
import { type ServedProcess, ServingFolder } from "../helpers/served-process.ts";
import { freePort } from "../helpers/valkey-server.ts";

const hasPrometheus = spawnSync("prometheus", ["--version"], { timeout: 20_000 }).status === 0;
const WITHOUT = hasPrometheus ? "" : " (skipped: prometheus is not installed)";
const LINES = Object.values(ROWS).flatMap((panels) =>
  panels.flatMap(({ title, lines }) => lines.map((line) => [`${title}: ${line.legend}`, line] as const)),
);

it("is what its program makes: `npm run build:dashboard`", () => {
  expect(readFileSync("deploy/grafana/densemamba.json", "utf8")).toBe(renderDashboard());
});

describe.skipIf(WITHOUT !== "")(`every query of the dashboard${WITHOUT}`, () => {
  let folder: ServingFolder;
  let server: ServedProcess;
  let prometheus: ChildProcess;
  let url: string;

  beforeAll(async () => {
    folder = await ServingFolder.make();
    server = await folder.serve([]);
    const port = await freePort();
    const config = path.join(folder.dir, "prometheus.yml");
    const job = { job_name: "densemamba", static_configs: [{ targets: [new URL(server.url).host] }] };
    await writeFile(config, JSON.stringify({ global: { scrape_interval: "1s" }, scrape_configs: [job] }));
    const files = [`--config.file=${config}`, `--storage.tsdb.path=${path.join(folder.dir, "tsdb")}`];
    prometheus = spawn("prometheus", [...files, `--web.listen-address=127.0.0.1:${port}`], { stdio: "ignore" });
    url = `http://127.0.0.1:${port}`;
    await server.post("/v1/sessions", { session_id: "tale" });
    const turn = { session_id: "tale", prompt: "Once upon a time", max_tokens: 8, ignore_eos: true };
    // Rates need several scrapes that differ.
    await vi.waitFor(
      async () => {
        await server.post("/v1/completions", turn);
        await server.post("/v1/completions", { ...turn, session_id: undefined, prompt: "A king ".repeat(100) });
        const scraped = await ask("count_over_time(up[5m])");
        expect(Number(scraped[0]?.value[1])).toBeGreaterThan(10);
      },
      { timeout: 120_000, interval: 100 },
    );
  }, 240_000);
  afterAll(async () => {
    server?.kill("SIGKILL");
    if (prometheus !== undefined) {
      prometheus.kill("SIGKILL");
      await once(prometheus, "exit");
    }
    await folder?.remove();
  });

  async function ask(query: string): Promise<{ value: [number, string] }[]> {
    const response = await fetch(`${url}/api/v1/query?${new URLSearchParams({ query })}`);
    const answer = (await response.json()) as { status: string; error?: string; data: { result: [] } };
    expect(answer.status, answer.error).toBe("success");
    return answer.data.result;
  }

  it.each(LINES)("%s", async (_, line) => {
    const query = queryOf(line)
      .replaceAll("$__rate_interval", "2m")
      .replaceAll(/\$(?:instance|model)/g, ".*");
    const found = await ask(query);
    expect(found.length, query).toBeGreaterThan(0);
    for (const { value } of found) expect(Number.isFinite(Number(value[1])), `${query}: ${value[1]}`).toBe(true);
  });
});
