/**
 * One of the soak test's clients over WebSocket: responses that continue from one another, with a
 * fork over two streams of one connection. Sometimes it cuts the connection and fetches the rest,
 * from the last event that arrived.
 */
import { WebSocket } from "ws";
import { SeededRandom } from "../../src/sampling/random.ts";
import type { SoakFixture } from "./fixture.ts";
import { startsWith } from "./ledger.ts";

const MAX_ANSWER_TOKENS = 40;
const OPEN_TIMEOUT_MS = 20_000;
const WORDS = ["fox", "river", "king", "boat", "stone", "bird", "house", "child", "moon", "bread"];
const ENDS = new Set(["response.completed", "response.incomplete", "response.failed"]);

interface Event {
  readonly type: string;
  readonly sequence_number?: number;
  readonly delta?: string;
  readonly response?: {
    readonly id: string;
    readonly status: string;
    readonly usage: { readonly output_tokens: number } | null;
    readonly error: { readonly code: string } | null;
  };
  readonly error?: { readonly code?: string };
}

/** A response that has ended well. */
interface Ended {
  readonly id: string;
  readonly status: string;
  readonly numTokens: number;
}

export class SocketUser {
  readonly #soak: SoakFixture;
  readonly #name: string;
  readonly #random: SeededRandom;
  #numNames = 0;

  constructor(soak: SoakFixture, name: string, seed: number) {
    this.#soak = soak;
    this.#name = name;
    this.#random = new SeededRandom(seed);
  }

  /**
   * A response, and two that continue it at once; each is compared with a cold run, and deleted.
   */
  async act(): Promise<void> {
    const { server } = this.#soak;
    const url = await server.url();
    const life = server.life;
    const socket = await connect(url);
    if (socket === undefined) return; // the server has just ended
    const made: Ended[] = [];
    try {
      const trunk = await this.#respond(socket, life, "main", undefined);
      if (trunk === undefined) return;
      made.push(trunk);
      const branches = await Promise.all(
        ["main", "other"].map((stream) => this.#respond(socket, life, stream, trunk.id, this.#random.next() < 0.2)),
      );
      made.push(...branches.filter((branch) => branch !== undefined));
    } finally {
      socket.terminate();
    }
    await this.#compare(made);
    for (const { id } of made) await this.#soak.insist("DELETE", `/v1/responses/${id}`);
  }

  /** @returns undefined if it did not end well; if that is a violation it has been reported */
  async #respond(
    socket: WebSocket,
    life: number,
    stream: string,
    previous: string | undefined,
    isCut = false,
  ): Promise<Ended | undefined> {
    const { server } = this.#soak;
    const events = new Events(socket, stream);
    const words = Array.from({ length: 3 + this.#below(20) }, () => WORDS[this.#below(WORDS.length)]);
    const message = {
      type: "response.create",
      stream_id: stream,
      input: `Tell me of a ${words.join(" and a ")}.`,
      temperature: 0,
      max_output_tokens: 1 + this.#below(MAX_ANSWER_TOKENS),
      ...(previous !== undefined && { previous_response_id: previous }),
    };
    socket.send(JSON.stringify(message), () => {});
    if (isCut) {
      await events.until((event) => event.delta !== undefined || ENDS.has(event.type));
      socket.terminate();
    }
    await events.until(({ type }) => ENDS.has(type) || type === "error");
    const id = events.all[0]?.response?.id;
    const all = id === undefined || events.hasEnd ? events.all : [...events.all, ...(await this.#rest(id, events.all))];
    return this.#judge(all, { life, wasCut: isCut || server.mayHaveEnded(life), name: `${this.#name} ${id}` });
  }

  /** The events that the connection did not bring. */
  async #rest(id: string, seen: readonly Event[]): Promise<Event[]> {
    const after = seen.at(-1)?.sequence_number ?? 0;
    const path = `/v1/responses/${id}?stream=true&starting_after=${after}`;
    const { status, body } = await this.#soak.insist("GET", path).catch(() => ({ status: 0, body: Buffer.alloc(0) }));
    this.#soak.ledger.count("responses resumed");
    if (status !== 200) return [];
    return body
      .toString()
      .split("\n")
      .filter((line) => line.startsWith("data: "))
      .map((line) => JSON.parse(line.slice("data: ".length)) as Event);
  }

  #judge(
    events: readonly Event[],
    { life, wasCut, name }: { readonly life: number; readonly wasCut: boolean; readonly name: string },
  ): Ended | undefined {
    const { ledger, server } = this.#soak;
    const last = events.at(-1);
    const mayHaveEnded = server.mayHaveEnded(life);
    if (last?.type === "error") {
      const code = last.error?.code ?? "an error without a code";
      if (!mayHaveEnded && code !== "queue_full") ledger.report("unexpected refusal", `${name}: ${code}`);
      return undefined;
    }
    const numEnds = events.filter(({ type }) => ENDS.has(type)).length;
    const isNumbered = events.every((event, i) => event.sequence_number === i);
    if (!isNumbered) ledger.report("wrong end", `${name}: events are missing or repeated`);
    if (numEnds !== 1 && !mayHaveEnded && !(wasCut && events.length === 0)) {
      ledger.report("wrong end", `${name}: ${numEnds} ends in ${events.length} events`);
    }
    const response = last?.response;
    if (numEnds !== 1 || response === undefined) {
      ledger.count("responses cut by the server's end");
      return undefined;
    }
    ledger.count(`responses ${response.status}`);
    if (response.status === "completed" || response.status === "incomplete") {
      return { id: response.id, status: response.status, numTokens: response.usage?.output_tokens ?? 0 };
    }
    if (!mayHaveEnded && !wasCut) ledger.report("wrong end", `${name}: ${response.status} ${response.error?.code}`);
    return undefined;
  }

  /** Through a session made from each response, whose tokens can be read. */
  async #compare(made: readonly Ended[]): Promise<void> {
    let trunkIds: readonly number[] = [];
    for (const [i, { id, status, numTokens }] of made.entries()) {
      const name = `${this.#name}-${this.#numNames++}`;
      const body = { session_id: name, previous_response_id: id };
      const reply = await this.#soak.insist("POST", "/v1/sessions", body);
      const tokenIds = await this.#soak.storedIds(name);
      if (tokenIds === undefined) {
        this.#soak.ledger.report("lost state", `${id}: ${reply.status} when a session was made from it`);
        continue;
      }
      // The token that stopped it is not stored.
      const numStored = status === "completed" ? numTokens - 1 : numTokens;
      if (!startsWith(tokenIds, trunkIds))
        this.#soak.ledger.report("wrong continuation", `${id} has another beginning`);
      if (i === 0) trunkIds = tokenIds;
      const answers = [{ start: tokenIds.length - numStored, end: tokenIds.length }];
      await this.#soak.verify({ id, tokenIds, answers });
      await this.#soak.insist("DELETE", `/v1/sessions/${name}`);
    }
  }

  #below(bound: number): number {
    return Math.floor(this.#random.next() * bound);
  }
}

/** The events of one stream of the connection from now on. */
class Events {
  readonly all: Event[] = [];
  readonly #socket: WebSocket;
  #onChange: () => void = () => {};

  constructor(socket: WebSocket, stream: string) {
    this.#socket = socket;
    socket.on("message", (data) => {
      const event = JSON.parse(data.toString()) as Event & { readonly stream_id?: string };
      if (event.stream_id !== stream || this.hasEnd) return;
      this.all.push(event);
      this.#onChange();
    });
    socket.on("close", () => this.#onChange());
  }

  get hasEnd(): boolean {
    const { type = "" } = this.all.at(-1) ?? {};
    return ENDS.has(type) || type === "error";
  }

  /** Resolves when there is such an event, or the connection has ended. */
  async until(isWanted: (event: Event) => boolean): Promise<void> {
    while (this.#socket.readyState === WebSocket.OPEN && !this.all.some(isWanted)) {
      await new Promise<void>((resolve) => {
        this.#onChange = resolve;
      });
    }
  }
}

/** @returns undefined if the server cannot be reached */
function connect(baseUrl: string): Promise<WebSocket | undefined> {
  const socket = new WebSocket(`${baseUrl.replace("http", "ws")}/v1/responses`, { handshakeTimeout: OPEN_TIMEOUT_MS });
  return new Promise((resolve) => {
    socket.once("open", () => resolve(socket));
    socket.on("error", () => resolve(undefined));
  });
}
