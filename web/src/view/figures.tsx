/** What the conversation takes, beside what it would take a transformer; and how the server fares. */
import type uPlot from "uplot";
import type { Model } from "../api/wire.ts";
import type { Page } from "../state/page.ts";
import type { Turn } from "../state/turn.ts";
import { bytes, count, milliseconds, percent, rate } from "./format.ts";
import { Plot } from "./plot.tsx";

export function FiguresPanel({ page }: { readonly page: Page }) {
  const { server } = page;
  const figures = server.figures.value;
  return (
    <section class="live" aria-label="Live figures">
      <h2>Live</h2>
      <AnswerFigures page={page} />
      <Memory page={page} />
      {figures !== undefined && (
        <dl class="load">
          <Figure name="Streams" value={count(figures.running)} />
          <Figure name="Queue" value={count(figures.waiting)} />
          <Figure
            name="Cache hits"
            value={figures.cacheHitShare === undefined ? "–" : percent(figures.cacheHitShare)}
          />
        </dl>
      )}
    </section>
  );
}

function Figure({ name, value }: { readonly name: string; readonly value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  );
}

/** Of the answer that is being written, or was written last. */
function AnswerFigures({ page: { conversation } }: { readonly page: Page }) {
  const turn = conversation.current.value;
  const timing = turn?.timing.value;
  const { tokensPerSecond, firstTokenMs } = timing ?? {};
  return (
    <dl>
      <Figure name="Speed" value={tokensPerSecond === undefined ? "–" : rate(tokensPerSecond)} />
      <Figure name="First token" value={firstTokenMs === undefined ? "–" : milliseconds(firstTokenMs)} />
      <Figure name="Tokens so far" value={count(turn?.numTokens ?? 0)} />
    </dl>
  );
}

/** Keys and values of 16 bits for each token, in each layer. */
function kvCacheBytesPerToken({ num_layers, hidden_size }: NonNullable<Model["densemamba"]>): number {
  return 2 * 2 * num_layers * hidden_size;
}

/** The state at the end of each turn, and a KV cache. A point beyond shows where the two lead. */
function memoryData(path: readonly Turn[], model: NonNullable<Model["densemamba"]>): uPlot.AlignedData {
  const ends = path.map(({ numTokens, isRunning }) => (isRunning ? rounded(numTokens) : numTokens));
  const tokens = [...new Set([0, ...ends])].sort((a, b) => a - b);
  const perToken = kvCacheBytesPerToken(model);
  const last = Math.max(tokens.at(-1)! * 1.25, (2 * model.state_bytes) / perToken);
  const all = [...tokens, last];
  return [all, all.map(() => model.state_bytes), all.map((numTokens) => numTokens * perToken)];
}

/** Drawing every token would take more time than rendering it. */
function rounded(numTokens: number): number {
  return Number(numTokens.toPrecision(2));
}

function Memory({ page: { conversation, server, settings } }: { readonly page: Page }) {
  const models = server.models.value;
  const chosen = settings.value.model;
  const model = (models.find(({ id }) => id === chosen) ?? models[0])?.densemamba;
  if (model === undefined) return null;
  const path = conversation.path.value;
  const numTokens = path.at(-1)?.numTokens ?? 0;
  const kvBytes = numTokens * kvCacheBytesPerToken(model);
  const summary = `After ${count(numTokens)} tokens the state takes ${bytes(model.state_bytes)}; the KV cache of a transformer of the same width would take ${bytes(kvBytes)}.`;
  return (
    <figure>
      <Plot
        data={memoryData(path, model)}
        label={summary}
        series={[
          { label: "State", color: "--state" },
          { label: "KV cache", color: "--kv" },
        ]}
        format={bytes}
      />
      <figcaption>{summary}</figcaption>
    </figure>
  );
}
