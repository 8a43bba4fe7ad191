/** The rules for Prometheus, tested with its own tool, and held against the metrics that there are. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { Metrics } from "../../src/metrics/metrics.ts";
import { fakeManifest } from "../helpers/fake-runner.ts";

const RULES = "deploy/prometheus/alerts.yml";

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly labels: { readonly severity: string };
  readonly annotations: { readonly summary: string; readonly description?: string };
}

const rules: readonly Rule[] = parse(readFileSync(RULES, "utf8")).groups.flatMap(
  (group: { rules: Rule[] }) => group.rules,
);

const render = () => new Metrics({ modelName: "m", manifest: fakeManifest(8), version: "1", now: () => 0 }).render();

it("the metrics pass promtool check metrics", async () => {
  const options = { encoding: "utf8", timeout: 60_000, input: await render() } as const;
  const { error, status, stdout, stderr } = spawnSync("promtool", ["check", "metrics"], options);
  if (error !== undefined && !process.env.CI) return; // not installed; .ci/run installs it
  expect(status, stdout + stderr).toBe(0);
});

describe("the alert rules", () => {
  it.each([
    ["check", "rules", RULES],
    ["test", "rules", "deploy/prometheus/alerts.test.yml"],
    ["check", "config", "--syntax-only", "docker/prometheus.yml"],
    ["check", "config", "--syntax-only", "docker/prometheus.replicas.yml"],
  ])("pass promtool %s %s", (...args) => {
    const { error, status, stdout, stderr } = spawnSync("promtool", args, { encoding: "utf8", timeout: 60_000 });
    if (error !== undefined && !process.env.CI) return; // not installed; .ci/run installs it
    expect(error).toBeUndefined();
    expect(status, stdout + stderr).toBe(0);
  });

  it("ask only for metrics that a server has", async () => {
    const names = [...(await render()).matchAll(/^# TYPE (\S+) (\S+)/gm)].flatMap(([, name, type]) =>
      type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name!],
    );
    expect(names.length).toBeGreaterThan(50);
    const asked = rules.flatMap(({ expr }) => expr.match(/\b(?:densemamba|nodejs|process)_\w+/g) ?? []);
    expect(asked.length).toBeGreaterThan(10);
    expect([...new Set(asked)].filter((name) => !names.includes(name))).toEqual([]);
  });

  it("are all in docs/metrics.md, and have a severity, a summary and an advice", () => {
    const listed = [...readFileSync("docs/metrics.md", "utf8").matchAll(/^\| `(Densemamba\w+)`/gm)].map(
      ([, name]) => name,
    );
    expect(listed).toEqual(rules.map(({ alert }) => alert));
    for (const { labels, annotations } of rules) {
      expect(["warning", "critical"]).toContain(labels.severity);
      expect(annotations.summary && annotations.description).toBeTruthy();
    }
  });
});
