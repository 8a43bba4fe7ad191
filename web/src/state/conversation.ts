/**
 * The tree of turns, which of them is shown, and what can be done with them. Responses and sessions
 * are the server's; the page remembers the ids of its responses for as long as the tab lives.
 */
import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import { ApiError, describe } from "../api/errors.ts";
import type { HttpApi } from "../api/http.ts";
import type { Listener, ResponseSocket } from "../api/socket.ts";
import type { ResponseObject, Session } from "../api/wire.ts";
import { type Settings, toFields } from "./settings.ts";
import { lastOf, type Origin, originOf, pathTo, showResponse, Turn, TurnReader } from "./turn.ts";

export interface ConversationOptions {
  readonly http: HttpApi;
  readonly socket: ResponseSocket;
  readonly settings: ReadonlySignal<Settings>;
  readonly storage: Storage;
  readonly now: () => number;
  /** Before the next frame. */
  readonly schedule: (apply: () => void) => void;
  readonly newKey: () => string;
  /** What a server without the right key answers. */
  readonly onError: (error: unknown) => void;
}

/** What the tab remembers of a turn. Its texts are the server's. */
interface KeptTurn {
  readonly key: string;
  readonly parent: string | undefined;
  readonly batch: string;
  readonly responseId: string | undefined;
  readonly session: Extract<Origin, { type: "session" }> | undefined;
  readonly name: string | undefined;
}

const STORAGE_KEY = "densemamba.turns";

export class Conversation {
  /** Turns that follow no other. */
  readonly roots: Signal<readonly Turn[]> = signal([]);
  /** The last of those that are shown. */
  readonly current: Signal<Turn | undefined> = signal(undefined);
  readonly path = computed(() => pathTo(this.current.value));
  readonly #options: ConversationOptions;
  readonly #listeners = new Map<Turn, Listener>();

  constructor(options: ConversationOptions) {
    this.#options = options;
  }

  /** Whether an answer to what is shown last is being written. */
  get isRunning(): boolean {
    const current = this.current.value;
    return current !== undefined && this.samplesOf(current).some(({ isRunning }) => isRunning);
  }

  /** Answers that were asked for together with this one, itself included. */
  samplesOf(turn: Turn): readonly Turn[] {
    return this.siblingsOf(turn).filter(({ batch }) => batch === turn.batch);
  }

  /** Turns that follow the same one, itself included. */
  siblingsOf(turn: Turn): readonly Turn[] {
    return (turn.parent?.children ?? this.roots).value;
  }

  /** Every turn, each before those that follow it. */
  all(): readonly Turn[] {
    const all: Turn[] = [];
    const visit = (turns: readonly Turn[]) => {
      for (const turn of turns) {
        all.push(turn);
        visit(turn.children.value);
      }
    };
    visit(this.roots.value);
    return all;
  }

  /** @throws if a setting is no JSON */
  send(text: string): void {
    // A turn without an answer leads no further: this message stands in its place.
    this.#ask(
      this.path.value.findLast(({ canGoOn }) => canGoOn),
      { type: "message", text },
    );
  }

  /** The same again, beside it. */
  retry(turn: Turn): void {
    this.#ask(turn.parent, turn.origin);
  }

  /** Another message in place of this turn's, beside it. */
  edit(turn: Turn, text: string): void {
    this.#ask(turn.parent, { type: "message", text });
  }

  /** Tells the model what the tools that it called have returned. */
  giveResults(turn: Turn, outputs: readonly { readonly callId: string; readonly output: string }[]): void {
    this.#ask(turn, { type: "results", outputs });
  }

  /** Shows the conversation up to this turn: the next message follows it. */
  goOnFrom(turn: Turn | undefined): void {
    this.current.value = turn;
    this.#keep();
  }

  /** Shows this turn and what followed it last. */
  show(turn: Turn): void {
    this.goOnFrom(lastOf(turn));
  }

  addSession({ id, num_tokens: numTokens }: Session): void {
    const key = this.#options.newKey();
    const origin = { type: "session", id, numTokens } as const;
    const turn = new Turn({ key, batch: key, origin, parent: undefined, status: "done" });
    turn.name.value = id;
    this.#add(turn);
    this.goOnFrom(turn);
  }

  /** Ends what is being written in answer to the last message. */
  stop(): void {
    const current = this.current.value;
    for (const turn of current === undefined ? [] : this.samplesOf(current)) {
      if (!turn.isRunning) continue;
      // Its last event comes over the socket.
      if (turn.responseId !== undefined)
        this.#options.http.cancelResponse(turn.responseId).catch(this.#options.onError);
      else this.#options.socket.cancelWaiting(this.#listeners.get(turn)!);
    }
  }

  /** Keeps the state of a turn under a name. */
  async name(turn: Turn, name: string): Promise<void> {
    const { http } = this.#options;
    const old = turn.name.value;
    if (old === undefined) await http.saveResponse(turn.responseId!, name);
    else await http.renameSession(old, name);
    turn.name.value = name;
    this.#keep();
  }

  /** The state of a turn as a file. */
  async download(turn: Turn): Promise<Blob> {
    const { http, newKey } = this.#options;
    if (turn.name.value !== undefined) return http.exportSession(turn.name.value);
    const { id } = await http.saveResponse(turn.responseId!, newKey());
    try {
      return await http.exportSession(id);
    } finally {
      await http.deleteSession(id);
    }
  }

  /** What the tab had before it was loaded again. What the server no longer has is left out. */
  async restore(): Promise<void> {
    const { storage, socket } = this.#options;
    const kept = JSON.parse(storage.getItem(STORAGE_KEY) ?? "{}") as { turns?: KeptTurn[]; current?: string };
    const found = await Promise.all((kept.turns ?? []).map((turn) => this.#find(turn)));
    const byKey = new Map<string, Turn>();
    for (const [index, { key, parent: parentKey, batch, name }] of (kept.turns ?? []).entries()) {
      const parent = byKey.get(parentKey ?? "");
      const { origin, response } = found[index] ?? {};
      if (origin === undefined || (parentKey !== undefined && parent === undefined)) continue;
      const turn = new Turn({ key, batch, parent, origin, status: "done" });
      turn.name.value = name;
      if (response !== undefined) showResponse(turn, response);
      byKey.set(key, turn);
      this.#add(turn);
      if (turn.isRunning) socket.attach(turn.responseId!, this.#listen(turn));
    }
    this.current.value = byKey.get(kept.current ?? "") ?? [...byKey.values()].at(-1);
  }

  async #find({ session, responseId }: KeptTurn): Promise<{ origin?: Origin; response?: ResponseObject }> {
    if (session !== undefined) return { origin: session };
    if (responseId === undefined) return {};
    const { http } = this.#options;
    try {
      const [response, items] = await Promise.all([http.response(responseId), http.inputItems(responseId)]);
      return { origin: originOf(items), response };
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return {};
      throw error;
    }
  }

  #ask(parent: Turn | undefined, origin: Origin): void {
    const { settings, newKey } = this.#options;
    const { model, ...others } = toFields(settings.value);
    // What is continued knows its model.
    const fields = parent === undefined ? { ...others, model } : others;
    const { numSamples, seed } = settings.value;
    const batch = newKey();
    const turns = Array.from({ length: numSamples }, (_, index) => {
      const turn = new Turn({ key: newKey(), batch, origin, parent, status: "waiting" });
      this.#add(turn);
      // Samples with the same seed would be the same.
      const body = { ...fields, ...(seed !== undefined && { seed: seed + index }), ...inputOf(origin, parent) };
      this.#options.socket.create(body, this.#listen(turn));
      return turn;
    });
    this.goOnFrom(turns[0]);
  }

  #listen(turn: Turn): Listener {
    const reader = new TurnReader(turn, this.#options);
    const listener: Listener = {
      onEvent: (event) => {
        reader.read(event);
        if (event.type === "response.created") this.#keep();
        if (!turn.isRunning) this.#listeners.delete(turn);
      },
      onFailure: (error) => {
        this.#listeners.delete(turn);
        turn.error.value = describe(error);
        turn.status.value = error.code === "aborted" ? "stopped" : "failed";
        this.#options.onError(error);
      },
    };
    this.#listeners.set(turn, listener);
    return listener;
  }

  #add(turn: Turn): void {
    const siblings = turn.parent?.children ?? this.roots;
    siblings.value = [...siblings.value, turn];
  }

  #keep(): void {
    const turns: KeptTurn[] = this.all().map(({ key, parent, batch, responseId, origin, name }) => ({
      key,
      parent: parent?.key,
      batch,
      responseId,
      session: origin.type === "session" ? origin : undefined,
      name: name.value,
    }));
    this.#options.storage.setItem(STORAGE_KEY, JSON.stringify({ turns, current: this.current.value?.key }));
  }
}

function inputOf(origin: Origin, parent: Turn | undefined): Record<string, unknown> {
  const before =
    parent === undefined
      ? {}
      : parent.origin.type === "session"
        ? { previous_session_id: parent.origin.id }
        : { previous_response_id: parent.responseId };
  switch (origin.type) {
    case "message":
      return { ...before, input: origin.text };
    case "results": {
      const input = origin.outputs.map(({ callId, output }) => ({
        type: "function_call_output",
        call_id: callId,
        output,
      }));
      return { ...before, input };
    }
    case "session":
      throw new Error("a stored session is no message");
  }
}
