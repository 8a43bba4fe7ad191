/**
 * OpenAI's conversations: lists of items that responses continue and add to. What the model has
 * read of one is the state of its last response; without that, as after an item was deleted, the
 * items are read again. Knows no HTTP.
 */
import { setImmediate } from "node:timers/promises";
import * as z from "zod";
import { DenseMambaError } from "../../errors.ts";
import type { ChatMessage } from "../../sessions/messages.ts";
import type { ServerDeps } from "../deps.ts";
import { toJson } from "../openai/json-writer.ts";
import { invalid, isRecord, show } from "../openai/validate.ts";
import { MAX_INPUT_ITEMS, messagesOf, type ResponseInput, withIds } from "./request.ts";
import { toInputItemObject } from "./response.ts";

export interface ConversationItem {
  readonly id: string;
  readonly [member: string]: unknown;
}

const conversationRecord = z.object({
  version: z.literal(1),
  createdS: z.number(),
  metadata: z.record(z.string(), z.string()),
  /** As they are listed. */
  items: z.custom<ConversationItem[]>((value) => Array.isArray(value) && value.every(isItem)),
  /** Of the items as JSON. */
  numCharacters: z.number(),
  /** Of the response whose state has read the first `numItems` items. */
  state: z.object({ responseId: z.string(), model: z.string(), numItems: z.number() }).nullable(),
});

type ConversationRecord = Readonly<z.infer<typeof conversationRecord>>;

/** What a response continues, and holds until it has ended. */
export interface ConversationTurn extends ConversationPast {
  /** @param responseId of a response whose state has read all items; undefined if it is not stored */
  append(items: readonly object[], responseId: string | undefined): Promise<void>;
  /** Idempotent. */
  release(): Promise<void>;
}

export interface ConversationPast {
  /** All of it. */
  readonly messages: () => Promise<readonly ChatMessage[]>;
  /** A response whose state has read all but these messages. */
  readonly resume: { readonly responseId: string; readonly messages: ConversationPast["messages"] } | undefined;
}

interface NewItems {
  readonly items: ResponseInput["items"];
  /** The client's name for them, for error messages. */
  readonly param: string;
}

export class ConversationItems {
  readonly #deps: ServerDeps;

  /** @param deps of the model whose store holds the conversations, of several the first */
  constructor(deps: ServerDeps) {
    this.#deps = deps;
  }

  /** @throws `invalid_value`, `store_unavailable` */
  async create(owner: string, { items }: NewItems, metadata: ConversationRecord["metadata"]) {
    const id = `conv_${this.#deps.newId()}`;
    const createdS = Math.floor(this.#deps.nowMs() / 1000);
    const empty: ConversationRecord = { version: 1, createdS, metadata, items: [], numCharacters: 0, state: null };
    const record = this.#withItems(empty, this.#named(items), "items");
    await this.#save(owner, id, record);
    return conversationObject(id, record);
  }

  /** @throws `conversation_not_found` */
  async retrieve(owner: string, id: string) {
    return conversationObject(id, await this.#read(owner, id));
  }

  /** @throws `conversation_not_found`, `conversation_locked` */
  async update(owner: string, id: string, metadata: ConversationRecord["metadata"]) {
    return conversationObject(id, await this.#change(owner, id, (record) => ({ ...record, metadata })));
  }

  /** The states and records of its responses stay. @throws as `update` */
  async delete(owner: string, id: string): Promise<void> {
    await this.#change(owner, id, () => undefined);
  }

  /** In their order. @throws `conversation_not_found` */
  async items(owner: string, id: string): Promise<readonly ConversationItem[]> {
    return (await this.#read(owner, id)).items;
  }

  /** @returns what was added. @throws as `update`; `invalid_value` beyond the bounds */
  async addItems(owner: string, id: string, { items, param }: NewItems): Promise<readonly ConversationItem[]> {
    const added = this.#named(items);
    await this.#change(owner, id, (record) => this.#withItems(record, added, param));
    return added;
  }

  /** @throws `conversation_not_found`, `item_not_found` */
  async item(owner: string, id: string, itemId: string): Promise<ConversationItem> {
    const found = (await this.#read(owner, id)).items.find((item) => item.id === itemId);
    if (found === undefined) throw itemNotFound(id, itemId);
    return found;
  }

  /** @throws as `item` and `update` */
  async deleteItem(owner: string, id: string, itemId: string) {
    const record = await this.#change(owner, id, ({ items, numCharacters, state, ...rest }) => {
      const index = items.findIndex((item) => item.id === itemId);
      if (index === -1) throw itemNotFound(id, itemId);
      return {
        ...rest,
        items: items.toSpliced(index, 1),
        numCharacters: numCharacters - JSON.stringify(items[index]).length,
        // A state cannot forget.
        state: state !== null && index < state.numItems ? null : state,
      };
    });
    return conversationObject(id, record);
  }

  /** The model of its last response. Undefined if there is none, or no such conversation. */
  async lastModel(owner: string, id: string): Promise<string | undefined> {
    const record = await this.#read(owner, id).catch((error: unknown) => {
      if (error instanceof DenseMambaError && error.code === "conversation_not_found") return undefined;
      throw error;
    });
    return record?.state?.model;
  }

  /** What a response of this model would continue. @throws `conversation_not_found` */
  async past(owner: string, id: string, model: string): Promise<ConversationPast> {
    return pastOf(await this.#read(owner, id), model);
  }

  /**
   * Held until it is released: responses of a conversation follow each other.
   * @throws `conversation_not_found`, `conversation_locked`, `invalid_value` if there is no room
   * for the input
   */
  async begin(owner: string, id: string, model: string, input: ResponseInput["items"]): Promise<ConversationTurn> {
    const lock = await this.#lock(owner, id);
    try {
      const record = await this.#read(owner, id);
      this.#withItems(record, this.#named(input), "conversation");
      return {
        ...pastOf(record, model),
        append: async (added, responseId) => {
          const text = toJson(added);
          // Nobody reads log-probabilities of the past.
          const plain = JSON.parse(text, (key, value) => (key === "logprobs" ? [] : value));
          const items = [...record.items, ...plain];
          const numCharacters = record.numCharacters + text.length;
          const state = responseId === undefined ? null : { responseId, model, numItems: items.length };
          await this.#save(owner, id, { ...record, items, numCharacters, state });
        },
        release: lock.release,
      };
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  #named(items: ResponseInput["items"]): ConversationItem[] {
    return withIds(items, this.#deps.newId()).map(toInputItemObject);
  }

  /** @throws `invalid_value` */
  #withItems(record: ConversationRecord, added: readonly ConversationItem[], param: string): ConversationRecord {
    const { maxBodyBytes } = this.#deps.options.limits;
    const items = [...record.items, ...added];
    if (items.length > MAX_INPUT_ITEMS) {
      throw invalid(param, `would have ${items.length} items; a conversation has at most ${MAX_INPUT_ITEMS}`);
    }
    const numCharacters = record.numCharacters + added.reduce((sum, item) => sum + JSON.stringify(item).length, 0);
    if (numCharacters > maxBodyBytes) {
      throw invalid(param, `would have ${numCharacters} characters; a conversation has at most ${maxBodyBytes}`);
    }
    return { ...record, items, numCharacters };
  }

  /** @param change returns undefined to delete it */
  async #change<T extends ConversationRecord | undefined>(
    owner: string,
    id: string,
    change: (record: ConversationRecord) => T,
  ): Promise<T> {
    const lock = await this.#lock(owner, id);
    try {
      const record = change(await this.#read(owner, id));
      if (record === undefined) await this.#store.deleteResponse(owner, id);
      else await this.#save(owner, id, record);
      return record;
    } finally {
      await lock.release();
    }
  }

  async #read(owner: string, id: string): Promise<ConversationRecord> {
    checkId(id);
    const stored = await this.#store.readRecord(owner, id).catch((error: unknown) => {
      throw error instanceof DenseMambaError && error.code === "response_not_found" ? notFound(id) : error;
    });
    // Parsing a long one takes some milliseconds, and so does what follows.
    await setImmediate();
    const { data, error } = conversationRecord.safeParse(stored);
    if (data !== undefined) return data;
    const message = `the stored record of conversation ${id} is malformed: ${error.message}`;
    throw new DenseMambaError("invalid_snapshot", message, { cause: error });
  }

  #save(owner: string, id: string, record: ConversationRecord): Promise<void> {
    return this.#store.saveRecord(owner, id, record);
  }

  async #lock(owner: string, id: string): Promise<{ release(): Promise<void> }> {
    checkId(id);
    return this.#store.lock(owner, id).catch((error: unknown) => {
      if (!(error instanceof DenseMambaError) || error.code !== "session_busy") throw error;
      const message = `conversation ${id} is used by another request; one at a time`;
      throw new DenseMambaError("conversation_locked", message, { param: "conversation", cause: error });
    });
  }

  get #store() {
    return this.#deps.generator.conversations;
  }
}

function conversationObject(id: string, { createdS, metadata }: ConversationRecord) {
  return { id, object: "conversation", created_at: createdS, metadata };
}

function pastOf({ items, state }: ConversationRecord, model: string): ConversationPast {
  const resumed = state?.model === model ? state : undefined;
  return {
    messages: () => messagesOf(items),
    resume: resumed && { responseId: resumed.responseId, messages: () => messagesOf(items.slice(resumed.numItems)) },
  };
}

function isItem(value: unknown): value is ConversationItem {
  return isRecord(value) && typeof value.id === "string";
}

function itemNotFound(id: string, itemId: string): DenseMambaError {
  return new DenseMambaError("item_not_found", `conversation ${id} has no item ${itemId}`, { param: "item_id" });
}

function notFound(id: string): DenseMambaError {
  const message = `there is no conversation ${show(id)} here`;
  return new DenseMambaError("conversation_not_found", message, { param: "conversation" });
}

/** Records of responses are in the same place, under ids of their own. */
function checkId(id: string): void {
  if (!/^conv_[A-Za-z0-9._:-]{1,123}$/.test(id)) throw notFound(id);
}
