/** The kept records of responses: written while and when they are made, read as transcripts that have all their events. */
import { DenseMambaError } from "../../errors.ts";
import type { ServerDeps } from "../deps.ts";
import type { InputItem } from "./input-items.ts";
import { parseRecord, type ResponseRecord } from "./response-record.ts";
import { isFinal, Transcript } from "./transcript.ts";

export interface KeptResponse {
  readonly transcript: Transcript;
  readonly input: readonly InputItem[];
}

export class ResponseRecords {
  readonly #deps: Pick<ServerDeps, "generator" | "nowMs" | "options">;

  constructor(deps: Pick<ServerDeps, "generator" | "nowMs" | "options">) {
    this.#deps = deps;
  }

  /** @param endsByMs of a response that is still being made: when, at the latest, it will have ended */
  keep(owner: string, { transcript, input }: KeptResponse, endsByMs?: number): Promise<void> {
    const { head, settings, state } = transcript;
    const record: ResponseRecord = {
      version: 1,
      head,
      settings,
      input,
      // A response that goes on must not change what is kept of it.
      transcript: { ...state, pieces: [...state.pieces], logprobs: state.logprobs && [...state.logprobs] },
      ...(endsByMs === undefined ? {} : { endsByMs }),
    };
    return this.#deps.generator.conversations.saveRecord(owner, head.id, record);
  }

  /**
   * One that has not ended is being made by another server, or was by one that is gone: then it has failed.
   * @throws `response_not_found`, `invalid_snapshot`
   */
  async read(owner: string, id: string): Promise<KeptResponse> {
    const record = parseRecord(id, await this.#deps.generator.conversations.readRecord(owner, id));
    const nowMs = this.#deps.nowMs();
    const transcript = new Transcript(record.head, record.settings, () => Math.floor(nowMs / 1000), record.transcript);
    const isMadeElsewhere = this.#deps.options.sharesStore && nowMs <= (record.endsByMs ?? 0);
    if (!isFinal(record.transcript.status) && !isMadeElsewhere) {
      transcript.fail(
        new DenseMambaError("runtime_fault", "the server that made the response went away before its end"),
      );
    }
    return { transcript, input: record.input };
  }

  /** The record and the state. @throws `response_not_found` */
  delete(owner: string, id: string): Promise<void> {
    return this.#deps.generator.conversations.deleteResponse(owner, id);
  }
}
