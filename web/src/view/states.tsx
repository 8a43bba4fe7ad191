/** The tree of states, what can be done with one, and the sessions that the server keeps. */
import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import type { Checkpoint, Session } from "../api/wire.ts";
import type { Page } from "../state/page.ts";
import type { Turn } from "../state/turn.ts";
import { bytes, count } from "./format.ts";

interface PanelProps {
  readonly page: Page;
  /** A state has been chosen to go on from. */
  readonly onOpen: () => void;
}

export function StatesPanel({ page, onOpen }: PanelProps) {
  return (
    <aside id="states" class="panel" aria-label="States">
      <h2>States</h2>
      <Tree page={page} onOpen={onOpen} />
      <CurrentState page={page} />
      <h2>Sessions</h2>
      <Sessions page={page} onOpen={onOpen} />
    </aside>
  );
}

interface Row {
  readonly turn: Turn;
  /** From 1. It grows where a conversation branches, not with its length. */
  readonly level: number;
}

function rowsOf(turns: readonly Turn[], level = 1): Row[] {
  return turns.flatMap((turn) => {
    const children = turn.children.value;
    return [{ turn, level }, ...rowsOf(children, children.length > 1 ? level + 1 : level)];
  });
}

function Tree({ page, onOpen }: PanelProps) {
  const { conversation } = page;
  const rows = rowsOf(conversation.roots.value);
  const path = new Set(conversation.path.value);
  const current = conversation.current.value;
  const focused = useSignal<string | undefined>(undefined);
  const list = useRef<HTMLDivElement>(null);
  if (rows.length === 0) return <p class="note">Each answer becomes a state here.</p>;
  const focusable = rows.find(({ turn }) => turn.key === focused.value) ?? rows.find(({ turn }) => turn === current);

  const open = (turn: Turn) => {
    conversation.goOnFrom(turn);
    onOpen();
  };
  const onKeyDown = (event: KeyboardEvent, index: number) => {
    const targets: Readonly<Record<string, number>> = {
      ArrowDown: index + 1,
      ArrowUp: index - 1,
      Home: 0,
      End: rows.length - 1,
    };
    if (event.key === "Enter" || event.key === " ") open(rows[index]!.turn);
    else if (event.key in targets) {
      const target = rows[targets[event.key]!];
      focused.value = target?.turn.key ?? focused.value;
      (list.current!.children[targets[event.key]!] as HTMLElement | undefined)?.focus();
    } else return;
    event.preventDefault();
  };

  return (
    <div class="tree" role="tree" aria-label="Tree of states" ref={list}>
      {rows.map(({ turn, level }, index) => (
        <div
          key={turn.key}
          role="treeitem"
          aria-level={level}
          aria-selected={turn === current}
          data-path={path.has(turn)}
          style={{ "--level": String(level) }}
          tabIndex={turn === (focusable ?? rows[0])?.turn ? 0 : -1}
          onClick={() => open(turn)}
          onFocus={() => (focused.value = turn.key)}
          onKeyDown={(event) => onKeyDown(event, index)}
        >
          <span class="label">{turn.name.value ?? turn.label}</span>
          <Tokens turn={turn} />
        </div>
      ))}
    </div>
  );
}

/** Apart, since it changes with every token. */
function Tokens({ turn }: { readonly turn: Turn }) {
  return <span class="tokens">{count(turn.numTokens)}</span>;
}

/** Of the conversation that is shown. */
function CurrentState({ page }: { readonly page: Page }) {
  const { conversation, server, attempt } = page;
  const turn = conversation.current.value;
  const name = useSignal("");
  if (turn === undefined || !turn.canGoOn) return null;
  const keep = (event: Event) => {
    event.preventDefault();
    if (name.value.trim() === "") return;
    void attempt(async () => {
      await conversation.name(turn, name.value.trim());
      name.value = "";
      await server.refreshSessions();
    });
  };
  const download = () =>
    attempt(async () => save(await conversation.download(turn), `${turn.name.value ?? "state"}.session`));
  return (
    <form class="current" onSubmit={keep}>
      <label>
        Name of this state
        <input
          value={name.value}
          placeholder={turn.name.value ?? "my-checkpoint"}
          onInput={({ currentTarget }) => {
            name.value = currentTarget.value;
          }}
        />
      </label>
      <div class="actions">
        <button type="submit" disabled={name.value.trim() === ""}>
          {turn.name.value === undefined ? "Keep as a session" : "Rename"}
        </button>
        <button type="button" onClick={download}>
          Download
        </button>
      </div>
    </form>
  );
}

function Sessions({ page, onOpen }: PanelProps) {
  const { conversation, server, http, attempt } = page;
  const input = useRef<HTMLInputElement>(null);
  const goOn = (session: Session) => {
    conversation.addSession(session);
    onOpen();
  };
  const remove = (session: Session) =>
    attempt(async () => {
      await http.deleteSession(session.id);
      await server.refreshSessions();
    });
  return (
    <section class="sessions" aria-label="Sessions">
      <ul>
        {server.sessions.value.map((session) => (
          <li key={session.id}>
            <span class="label">{session.id}</span>
            <span class="tokens">
              {count(session.num_tokens)} tokens · {bytes(session.state_bytes)}
            </span>
            <div class="actions">
              <button type="button" onClick={() => goOn(session)} disabled={session.num_tokens === 0}>
                Continue <span class="hidden">from {session.id}</span>
              </button>
              <button
                type="button"
                onClick={() => attempt(async () => save(await http.exportSession(session.id), `${session.id}.session`))}
              >
                Download <span class="hidden">{session.id}</span>
              </button>
              <button type="button" onClick={() => remove(session)}>
                Delete <span class="hidden">{session.id}</span>
              </button>
            </div>
            {session.checkpoint !== null && <Checkpoints page={page} session={session} onFork={goOn} />}
          </li>
        ))}
      </ul>
      <p class="note">
        <button type="button" onClick={() => input.current!.click()}>
          Open a file
        </button>{" "}
        or drop one on the page, to continue from its state.
      </p>
      <input
        ref={input}
        class="hidden"
        type="file"
        tabIndex={-1}
        aria-label="File of a state"
        onChange={({ currentTarget }) => {
          const file = currentTarget.files?.[0];
          if (file !== undefined) void page.loadFile(file).then(onOpen);
          currentTarget.value = "";
        }}
      />
    </section>
  );
}

interface CheckpointsProps {
  readonly page: Page;
  readonly session: Session;
  readonly onFork: (fork: Session) => void;
}

/** The states that a session can go back to, one for each turn. */
function Checkpoints({ page: { http, server, attempt }, session, onFork }: CheckpointsProps) {
  const checkpoints = useSignal<readonly Checkpoint[]>([]);
  const load = async () => {
    checkpoints.value = await http.checkpoints(session.id);
  };
  const rollBack = ({ id }: Checkpoint) =>
    attempt(async () => {
      await http.rollBack(session.id, id);
      await Promise.all([load(), server.refreshSessions()]);
    });
  const fork = ({ id, name, num_tokens }: Checkpoint) =>
    attempt(async () => {
      onFork(await http.forkSession(session.id, { checkpoint: id, name: `${session.id}-${name ?? num_tokens}` }));
      await server.refreshSessions();
    });
  return (
    <details onToggle={({ currentTarget }) => currentTarget.open && void attempt(load)}>
      <summary>
        Checkpoints <span class="hidden">of {session.id}</span>
      </summary>
      <ul>
        {checkpoints.value.map((checkpoint) => {
          const label = checkpoint.name ?? `${count(checkpoint.num_tokens)} tokens`;
          return (
            <li key={checkpoint.id} aria-current={checkpoint.current ? "true" : undefined}>
              <span class="label">{checkpoint.current ? `${label} (current)` : label}</span>
              <div class="actions">
                <button type="button" disabled={checkpoint.current} onClick={() => rollBack(checkpoint)}>
                  Roll back <span class="hidden">to {label}</span>
                </button>
                <button type="button" onClick={() => fork(checkpoint)}>
                  Fork <span class="hidden">at {label}</span>
                </button>
              </div>
            </li>
          );
        })}
      </ul>
    </details>
  );
}

function save(blob: Blob, fileName: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = fileName.replaceAll(":", "_");
  link.click();
  URL.revokeObjectURL(url);
}
