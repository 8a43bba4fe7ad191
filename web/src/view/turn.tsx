/** One turn: what was said, its answer or answers, and what can be done with them. */
import { useSignal } from "@preact/signals";
import type { Page } from "../state/page.ts";
import type { AnswerPart, Origin, Turn } from "../state/turn.ts";
import { bytes, count, milliseconds, rate } from "./format.ts";
import { Markdown } from "./markdown.tsx";

interface TurnProps {
  readonly page: Page;
  readonly turn: Turn;
}

export function TurnView({ page, turn, isLast }: TurnProps & { readonly isLast: boolean }) {
  const { conversation } = page;
  const samples = isLast ? conversation.samplesOf(turn) : [turn];
  return (
    <li class="turn">
      <Said page={page} turn={turn} />
      {turn.origin.type !== "session" && (
        <div class="answers" data-count={samples.length}>
          {samples.map((sample) => (
            <Answer key={sample.key} page={page} turn={sample} isLast={isLast} isOneOfMany={samples.length > 1} />
          ))}
        </div>
      )}
    </li>
  );
}

function Said({ page, turn }: TurnProps) {
  const { conversation, attempt } = page;
  const isEditing = useSignal(false);
  const { origin } = turn;
  if (isEditing.value && origin.type === "message") {
    const onSave = (text: string) => {
      isEditing.value = false;
      void attempt(() => conversation.edit(turn, text));
    };
    return <MessageEditor text={origin.text} onSave={onSave} onCancel={() => (isEditing.value = false)} />;
  }
  return (
    <div class="said" data-type={origin.type}>
      <OriginView origin={origin} />
      <div class="actions">
        <SiblingSwitch page={page} turn={turn} />
        {origin.type === "message" && (
          <button type="button" disabled={conversation.isRunning} onClick={() => (isEditing.value = true)}>
            Edit
          </button>
        )}
      </div>
    </div>
  );
}

function OriginView({ origin }: { readonly origin: Origin }) {
  switch (origin.type) {
    case "message":
      return <p class="text">{origin.text}</p>;
    case "results":
      return (
        <>
          {origin.outputs.map(({ callId, output }) => (
            <pre key={callId}>{output}</pre>
          ))}
        </>
      );
    case "session":
      return (
        <p>
          The state of <strong>{origin.id}</strong>, which has read {count(origin.numTokens)} tokens. What you say next
          continues it; the session stays as it is.
        </p>
      );
  }
}

interface MessageEditorProps {
  readonly text: string;
  readonly onSave: (text: string) => void;
  readonly onCancel: () => void;
}

function MessageEditor({ text, onSave, onCancel }: MessageEditorProps) {
  const edited = useSignal(text);
  return (
    <form
      class="said"
      onSubmit={(event) => {
        event.preventDefault();
        if (edited.value.trim() !== "") onSave(edited.value);
      }}
    >
      <textarea
        aria-label="Message"
        rows={3}
        value={edited.value}
        ref={(element) => element?.focus()}
        onInput={({ currentTarget }) => {
          edited.value = currentTarget.value;
        }}
      />
      <div class="actions">
        <button type="submit" class="primary">
          Send
        </button>
        <button type="button" onClick={onCancel}>
          Cancel
        </button>
      </div>
    </form>
  );
}

/** Between what was said, or answered, at the same place. */
function SiblingSwitch({ page: { conversation }, turn }: TurnProps) {
  const siblings = conversation.siblingsOf(turn);
  if (siblings.length < 2) return null;
  const at = siblings.indexOf(turn);
  const button = (label: string, symbol: string, target: Turn | undefined) => (
    <button type="button" aria-label={label} disabled={target === undefined} onClick={() => conversation.show(target!)}>
      {symbol}
    </button>
  );
  return (
    <fieldset class="switch" aria-label="Branches">
      {button("Branch before", "‹", siblings[at - 1])}
      <span>
        {at + 1} of {siblings.length}
      </span>
      {button("Branch after", "›", siblings[at + 1])}
    </fieldset>
  );
}

interface AnswerProps extends TurnProps {
  readonly isLast: boolean;
  readonly isOneOfMany: boolean;
}

function Answer({ page, turn, isLast, isOneOfMany }: AnswerProps) {
  const { conversation, attempt } = page;
  const isCurrent = conversation.current.value === turn;
  return (
    <article class="answer" aria-busy={turn.isRunning} data-current={isOneOfMany && isCurrent}>
      {turn.parts.value.map((part, index) => (
        <PartView key={index} part={part} />
      ))}
      <AnswerNote turn={turn} />
      <AnswerFigures turn={turn} />
      {isLast && isCurrent && turn.canGoOn && <CallResults page={page} turn={turn} />}
      <div class="actions">
        {(!isLast || (isOneOfMany && !isCurrent)) && (
          <button type="button" disabled={!turn.canGoOn} onClick={() => conversation.goOnFrom(turn)}>
            Continue from here
          </button>
        )}
        <button type="button" disabled={conversation.isRunning} onClick={() => attempt(() => conversation.retry(turn))}>
          Retry
        </button>
      </div>
    </article>
  );
}

function PartView({ part }: { readonly part: AnswerPart }) {
  switch (part.kind) {
    case "text":
      return <Markdown text={part.text} />;
    case "reasoning":
      return (
        <details class="reasoning">
          <summary>Thinking</summary>
          <p class="text">{part.text}</p>
        </details>
      );
    case "call":
      return (
        <div class="call">
          <p>
            Calls <code>{part.call?.name}</code>
          </p>
          <pre>{part.text}</pre>
        </div>
      );
  }
}

/** How it ended, unless it just did. */
function AnswerNote({ turn }: { readonly turn: Turn }) {
  const error = turn.error.value;
  switch (turn.status.value) {
    case "waiting":
      return <p class="note">Waiting for its turn …</p>;
    case "cut":
      return <p class="note">Cut off at the maximum number of tokens.</p>;
    case "stopped":
      return <p class="note">Stopped.</p>;
    case "failed":
      return (
        <p class="note error" role="alert">
          {error ?? "The answer failed."}
        </p>
      );
    case "running":
    case "done":
      return null;
  }
}

function AnswerFigures({ turn }: { readonly turn: Turn }) {
  const usage = turn.usage.value;
  const { firstTokenMs, tokensPerSecond, numTokens } = turn.timing.value;
  const cached = usage?.input_tokens_details.cached_tokens;
  const figures = [
    cached !== undefined && `${count(cached)} cached`,
    usage !== undefined && cached !== undefined && `${count(usage.input_tokens - cached)} read`,
    `${count(usage?.output_tokens ?? numTokens)} written`,
    tokensPerSecond !== undefined && rate(tokensPerSecond),
    firstTokenMs !== undefined && `first after ${milliseconds(firstTokenMs)}`,
    usage !== undefined && `state ${bytes(usage.state_bytes)}`,
  ];
  return <p class="figures">{figures.filter((text) => text !== false).join(" · ")}</p>;
}

/** Of the tools that the answer calls. */
function CallResults({ page, turn }: TurnProps) {
  const calls = turn.parts.value.flatMap(({ call }) => call ?? []);
  const outputs = useSignal<Readonly<Record<string, string>>>({});
  if (calls.length === 0) return null;
  const submit = (event: Event) => {
    event.preventDefault();
    const given = calls.map(({ id }) => ({ callId: id, output: outputs.value[id] ?? "" }));
    void page.attempt(() => page.conversation.giveResults(turn, given));
  };
  return (
    <form class="results" onSubmit={submit}>
      {calls.map(({ id, name }) => (
        <label key={id}>
          What {name} returns
          <textarea
            rows={2}
            onInput={({ currentTarget }) => {
              outputs.value = { ...outputs.value, [id]: currentTarget.value };
            }}
          />
        </label>
      ))}
      <button type="submit" class="primary">
        Send results
      </button>
    </form>
  );
}
