// Makes deploy/grafana/densemamba.json, which Grafana 11 or later imports. test/house/dashboard.test.ts asks a real Prometheus every
// query, and refuses a file that is not what this program makes.
//
//   npm run build:dashboard
import { writeFileSync } from "node:fs";
import path from "node:path";
import {
  type Dashboard,
  DashboardBuilder,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  RowBuilder,
  VariableRefresh,
} from "@grafana/grafana-foundation-sdk/dashboard";
import { DataqueryBuilder } from "@grafana/grafana-foundation-sdk/prometheus";
import { PanelBuilder } from "@grafana/grafana-foundation-sdk/timeseries";

/** In PromQL, with `MODEL` and `PROCESS` for the labels that the dashboard's variables choose. */
interface Line {
  readonly expr: string;
  readonly legend: string;
}

interface PanelText {
  readonly title: string;
  readonly description: string;
  /** One of Grafana's. */
  readonly unit: string;
  readonly lines: readonly Line[];
}

const quantiles = (metric: string): Line[] =>
  [0.5, 0.95, 0.99].map((quantile) => ({
    expr: `histogram_quantile(${quantile}, sum by (le) (rate(densemamba_${metric}_bucket{MODEL}[$__rate_interval])))`,
    legend: `p${quantile * 100}`,
  }));
const sum = (metric: string, legend: string, by?: string): Line => ({
  expr: `sum${by ? ` by (${by})` : ""} (densemamba_${metric}{MODEL})`,
  legend,
});
const rate = (metric: string, legend: string, by?: string): Line => ({
  expr: `sum${by ? ` by (${by})` : ""} (rate(densemamba_${metric}{MODEL}[$__rate_interval]))`,
  legend,
});
const share = (part: string, whole: string, legend: string): Line => ({
  expr: `sum(rate(densemamba_${part}{MODEL}[$__rate_interval])) / (sum(rate(densemamba_${whole}{MODEL}[$__rate_interval])) > 0)`,
  legend,
});

export const ROWS: Readonly<Record<string, readonly PanelText[]>> = {
  Traffic: [
    {
      title: "HTTP requests",
      description: "Answered, by status. 429: the queue was full. 503: see the log.",
      unit: "reqps",
      lines: [rate("http_requests_total", "{{status}}", "status")],
    },
    {
      title: "Sequences",
      description: "Each choice of a request is one.",
      unit: "short",
      lines: [
        sum("num_requests_running", "running"),
        sum("num_requests_waiting", "waiting"),
        sum("num_requests_suspended", "suspended"),
        sum("slots", "slots"),
      ],
    },
    {
      title: "Finished",
      description: "By reason; aborted: the client has gone.",
      unit: "reqps",
      lines: [rate("request_success_total", "{{finished_reason}}", "finished_reason")],
    },
  ],
  Latency: [
    {
      title: "Time to first token",
      description: "From arrival in the engine.",
      unit: "s",
      lines: quantiles("time_to_first_token_seconds"),
    },
    {
      title: "Between tokens",
      description: "Of one sequence.",
      unit: "s",
      lines: quantiles("inter_token_latency_seconds"),
    },
    {
      title: "Whole requests",
      description: "From arrival to the last token.",
      unit: "s",
      lines: quantiles("e2e_request_latency_seconds"),
    },
    {
      title: "Time in the queue",
      description: "Until there is a slot: if it grows, add replicas.",
      unit: "s",
      lines: quantiles("request_queue_time_seconds"),
    },
  ],
  Tokens: [
    {
      title: "Tokens",
      description: "Read from prompts, and sampled.",
      unit: "short",
      lines: [rate("prefill_tokens_total", "prompt tokens/s"), rate("generation_tokens_total", "sampled tokens/s")],
    },
    {
      title: "Prompt tokens that were not read again",
      description: "Of all that could have been: sessions, earlier responses and cached prefixes.",
      unit: "percentunit",
      lines: [
        share("prefix_cache_hits_total", "prefix_cache_queries_total", "all"),
        share("prefix_cache_lookup_hits_total", "prefix_cache_lookups_total", "prompts with a cached prefix"),
      ],
    },
    {
      title: "Steps of the engine",
      description: "One forward pass for all running sequences.",
      unit: "s",
      lines: quantiles("step_duration_seconds"),
    },
  ],
  States: [
    {
      title: "Memory for states",
      description: "Sessions and responses, their bound, and cached prefixes.",
      unit: "bytes",
      lines: [
        sum("store_bytes", "sessions and responses"),
        sum("store_max_bytes", "their bound"),
        sum("prefix_cache_bytes", "prefixes"),
      ],
    },
    {
      title: "Stored states",
      description: "In each tier, and those evicted from memory.",
      unit: "short",
      lines: [
        sum("store_tier_snapshots", "{{store}}, {{tier}}", "store, tier"),
        rate("store_evictions_total", "evicted from memory/s"),
      ],
    },
    {
      title: "Failures of stores",
      description: "Requests that a tier has failed to answer, and states that were damaged.",
      unit: "short",
      lines: [
        rate("store_tier_failures_total", "{{store}}, {{tier}}", "store, tier"),
        rate("store_damaged_snapshots_total", "damaged"),
      ],
    },
    {
      title: "Copying states",
      description: "Out of slots, and into them.",
      unit: "s",
      lines: [
        ...quantiles("snapshot_capture_seconds").slice(1, 2),
        ...quantiles("snapshot_restore_seconds").slice(1, 2),
      ].map((line, index) => ({ ...line, legend: ["capture, p95", "restore, p95"][index]! })),
    },
  ],
  Process: [
    {
      title: "Lag of the event loop",
      description: "Streams stutter by it.",
      unit: "s",
      lines: [{ expr: "max by (instance) (nodejs_eventloop_lag_p99_seconds{PROCESS})", legend: "{{instance}}, p99" }],
    },
    {
      title: "Memory",
      description: "Resident.",
      unit: "bytes",
      lines: [{ expr: "max by (instance) (process_resident_memory_bytes{PROCESS})", legend: "{{instance}}" }],
    },
    {
      title: "CPU",
      description: "Cores in use.",
      unit: "short",
      lines: [
        {
          expr: "max by (instance) (rate(process_cpu_seconds_total{PROCESS}[$__rate_interval]))",
          legend: "{{instance}}",
        },
      ],
    },
    {
      title: "Starts and faults",
      description: "Within the last quarter of an hour.",
      unit: "short",
      lines: [
        {
          expr: "max by (instance) (changes(process_start_time_seconds{PROCESS}[15m]))",
          legend: "{{instance}}, starts",
        },
        {
          expr: "sum by (instance) (increase(densemamba_engine_faults_total{MODEL}[15m]))",
          legend: "{{instance}}, faults",
        },
      ],
    },
  ],
};

const DATASOURCE = { type: "prometheus", uid: "$datasource" };

export function queryOf({ expr }: Line): string {
  return expr
    .replaceAll("MODEL", 'instance=~"$instance",model_name=~"$model"')
    .replaceAll("PROCESS", 'instance=~"$instance"');
}

export function buildDashboard(): Dashboard {
  const variable = (name: string, label: string, of: string) =>
    new QueryVariableBuilder(name)
      .label(label)
      .query(`label_values(densemamba_model_info, ${of})`)
      .datasource(DATASOURCE)
      .refresh(VariableRefresh.OnTimeRangeChanged)
      .multi(true)
      .includeAll(true)
      .allValue(".*");
  const dashboard = new DashboardBuilder("densemamba")
    .uid("densemamba")
    .description("docs/metrics.md describes the metrics.")
    .tags(["densemamba", "inference"])
    .time({ from: "now-1h", to: "now" })
    .refresh("30s")
    .withVariable(new DatasourceVariableBuilder("datasource").label("Prometheus").type("prometheus"))
    .withVariable(variable("model", "Model", "model_name"))
    .withVariable(variable("instance", "Server", "instance"));
  for (const [title, panels] of Object.entries(ROWS)) {
    dashboard.withRow(new RowBuilder(title));
    for (const { title, description, unit, lines } of panels) {
      const panel = new PanelBuilder().title(title).description(description).unit(unit).min(0);
      panel
        .datasource(DATASOURCE)
        .height(8)
        .span(24 / panels.length);
      for (const line of lines) {
        panel.withTarget(new DataqueryBuilder().expr(queryOf(line)).legendFormat(line.legend));
      }
      dashboard.withPanel(panel);
    }
  }
  return dashboard.build();
}

export function renderDashboard(): string {
  return `${JSON.stringify(buildDashboard(), null, 2)}\n`;
}

if (process.argv[1] === import.meta.filename) {
  writeFileSync(path.join(import.meta.dirname, "densemamba.json"), renderDashboard());
}
