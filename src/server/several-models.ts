/**
 * Several models behind one address. A request is for the model that it names; if it names none,
 * for the one that has its session or response, else for the first. Each model has endpoints,
 * sessions and responses of its own.
 */
import { DenseMambaError } from "../errors.ts";
import type { ServedModel, ServerDeps } from "./deps.ts";
import { invalid, isRecord, show } from "./openai/validate.ts";
import type { Responses } from "./responses/responses.ts";

/** One model, ready to serve, whether its weights are in memory or not. */
export interface ModelService {
  readonly deps: ServerDeps;
  readonly responses: Responses;
}

/** In llama.cpp's words. */
export type ModelState =
  | { readonly value: "unloaded" | "loading" | "loaded" }
  | { readonly value: "failed"; readonly error: string };

export interface ModelEntry {
  readonly name: string;
  readonly state: ModelState;
  /** It failed a short time ago: a request would be refused without another try. */
  readonly isRefusing: boolean;
  /** Undefined if the model cannot be served; then `open` tries again. */
  readonly service: ModelService | undefined;
  /** @throws `model_load_failed` */
  open(): Promise<ModelService>;
  /** How long it stays loaded after its last request. Undefined: as the server is configured. */
  keepAlive(ms: number | undefined): void;
}

/** What tells the model of a request that names none. */
interface Caller {
  readonly owner: string;
  readonly path?: string;
  /** A response that is not stored, which only its connection knows. */
  readonly findUnstored?: (responseId: string) => ModelService | undefined;
}

const MAX_KEEP_ALIVE_S = 3650 * 86_400;
const UNIT_SECONDS: Readonly<Record<string, number>> = { "": 1, ms: 1e-3, s: 1, m: 60, h: 3600, d: 86_400 };

export class SeveralModels {
  /** The first is the default. */
  readonly entries: readonly ModelEntry[];

  constructor(entries: readonly ModelEntry[]) {
    this.entries = entries;
  }

  get services(): readonly ModelService[] {
    return this.entries.flatMap(({ service }) => service ?? []);
  }

  /** @throws `model_not_found`, `model_load_failed` */
  async named(name: string): Promise<ModelService> {
    return this.entry(name).open();
  }

  /**
   * @param body undefined if there is none
   * @throws `model_not_found`, `model_load_failed`, `invalid_value`
   */
  async forRequest(body: unknown, caller: Caller): Promise<ModelService> {
    const fields = isRecord(body) ? body : {};
    const { model } = fields;
    // What is not a string is refused by the endpoint.
    const isNamed = typeof model === "string" && model !== "";
    const service = isNamed
      ? await this.named(model)
      : ((await this.#thatHas(fields, caller)) ?? (await this.#first()));
    const entry = this.entries.find((one) => one.service === service)!;
    if (body !== undefined) entry.keepAlive(parseKeepAlive(fields.keep_alive));
    return service;
  }

  /** @returns undefined if no model has it */
  withResponse(owner: string, id: string): Promise<ModelService | undefined> {
    return this.#find(({ responses }) => responses.has(owner, id));
  }

  async #thatHas(
    fields: Readonly<Record<string, unknown>>,
    { owner, path = "", findUnstored }: Caller,
  ): Promise<ModelService | undefined> {
    const { session_id: advanced, previous_session_id: copied, previous_response_id: response, conversation } = fields;
    const session = advanced ?? copied;
    const [, kind, id] = /^\/v1\/(sessions|responses)\/([^/]+)/.exec(path) ?? [];
    const found =
      (kind === "sessions" && (await this.#withSession(owner, id!))) ||
      (kind === "responses" && (await this.withResponse(owner, id!)));
    if (found) return found;
    if (typeof response === "string") return findUnstored?.(response) ?? this.withResponse(owner, response);
    if (conversation != null) return this.#withConversation(owner, conversation);
    return typeof session === "string" ? this.#withSession(owner, session) : undefined;
  }

  /** The one that answered last in it. */
  async #withConversation(owner: string, given: unknown): Promise<ModelService | undefined> {
    const id = isRecord(given) ? given.id : given;
    if (typeof id !== "string") return undefined;
    const name = await this.entries[0]!.service!.responses.conversations.lastModel(owner, id);
    return this.entries.find((entry) => entry.name === name)?.open();
  }

  #withSession(owner: string, id: string): Promise<ModelService | undefined> {
    return this.#find(({ deps }) =>
      deps.generator.conversations.inspectSession(owner, id).then(
        () => true,
        (error: unknown) => {
          if (error instanceof DenseMambaError && error.code === "session_not_found") return false;
          throw error;
        },
      ),
    );
  }

  async #find(has: (service: ModelService) => Promise<boolean>): Promise<ModelService | undefined> {
    for (const service of this.services) if (await has(service)) return service;
    return undefined;
  }

  #first(): Promise<ModelService> {
    return this.entries[0]!.open();
  }

  /** @throws `model_not_found` */
  entry(name: string): ModelEntry {
    const modelOf = ({ service }: ModelEntry): ServedModel | undefined => service?.deps.model;
    const entry =
      this.entries.find((one) => one.name === name) ??
      this.entries.find((one) => modelOf(one)?.aliases.includes(name)) ??
      this.entries.find((one) => modelOf(one)?.takesAnyName);
    if (entry !== undefined) return entry;
    const served = this.entries.map((one) => JSON.stringify(one.name)).join(", ");
    const message = `the model ${JSON.stringify(name.slice(0, 128))} does not exist here; this server has ${served}`;
    throw new DenseMambaError("model_not_found", message, { param: "model" });
  }
}

/**
 * Ollama's field: seconds, or text with a unit; negative for ever.
 * @returns milliseconds; undefined if the request leaves it to the server
 */
function parseKeepAlive(given: unknown): number | undefined {
  if (given === undefined || given === null) return undefined;
  const [, number, unit = ""] = /^(-?\d+(?:\.\d+)?)(ms|s|m|h|d)?$/.exec(String(given)) ?? [];
  const seconds = typeof given === "boolean" ? Number.NaN : Number(number) * UNIT_SECONDS[unit]!;
  if (seconds < 0) return Number.POSITIVE_INFINITY;
  if (seconds <= MAX_KEEP_ALIVE_S) return seconds * 1000;
  throw invalid(
    "keep_alive",
    `must be seconds, or a time such as "90s", "5m" or "2h" of at most ${MAX_KEEP_ALIVE_S} seconds; -1 for ever; got ${show(given)}`,
  );
}
