/**
 * The stored records of responses, written while and after they run, and read back as transcripts
 * with all their events.
 */
import { DenseMambaError } from "../../errors.ts";
import type { ServerDeps } from "../deps.ts";
import { isRecord } from "../openai/validate.ts";
import { type InputItem, type ResponseRecord, responseRecord } from "./response.ts";
import { copyState, isFinal, Transcript } from "./transcript.ts";

export interface StoredResponse {
  readonly transcript: Transcript;
  readonly input: readonly InputItem[];
}

export class ResponseRecords {
  readonly #deps: Pick<ServerDeps, "generator" | "nowMs" | "options">;

  constructor(deps: Pick<ServerDeps, "generator" | "nowMs" | "options">) {
    this.#deps = deps;
  }

  /** @param endsByMs of a running response: when it will have ended at the latest */
  save(owner: string, { transcript, input }: StoredResponse, endsByMs?: number): Promise<void> {
    const { head, settings, state } = transcript;
    const record: ResponseRecord = {
      version: 2,
      head,
      settings,
      input: [...input],
      // Copied, as a running response goes on changing its own.
      transcript: copyState(state),
      ...(endsByMs === undefined ? {} : { endsByMs }),
    };
    return this.#deps.generator.conversations.saveRecord(owner, head.id, record);
  }

  /**
   * An unfinished record belongs to a response on another server, or on one that has gone: then it
   * has failed.
   * @throws `response_not_found`, `invalid_snapshot`
   */
  async read(owner: string, id: string): Promise<StoredResponse> {
    if (!id.startsWith("resp_")) {
      const message = `response ${id} is not stored here`;
      throw new DenseMambaError("response_not_found", message, { param: "response_id" });
    }
    const { head, settings, input, ...record } = parseRecord(
      id,
      await this.#deps.generator.conversations.readRecord(owner, id),
    );
    const nowMs = this.#deps.nowMs();
    const transcript = new Transcript(head, settings, () => Math.floor(nowMs / 1000), record.transcript);
    const isRunningElsewhere = this.#deps.options.sharesStore && nowMs <= (record.endsByMs ?? 0);
    if (!isFinal(record.transcript.status) && !isRunningElsewhere) {
      const message = "the server that made the response went away before its end";
      transcript.fail(new DenseMambaError("runtime_fault", message));
    }
    return { transcript, input };
  }

  /** Deletes the record and the state. @throws `response_not_found` */
  delete(owner: string, id: string): Promise<void> {
    return this.#deps.generator.conversations.deleteResponse(owner, id);
  }
}

/** @throws `invalid_snapshot` if it is no such record */
export function parseRecord(id: string, stored: unknown): ResponseRecord {
  const { data, error } = responseRecord.safeParse(upgraded(stored));
  if (data !== undefined) return data;
  const message = `the stored record of response ${id} is malformed: ${error.message}`;
  throw new DenseMambaError("invalid_snapshot", message, { cause: error });
}

/** Version 1 had reasoning and one message, each in its own place. */
function upgraded(stored: unknown): unknown {
  if (!isRecord(stored) || stored.version !== 1 || !isRecord(stored.transcript)) return stored;
  const { reasoning, hasItem, pieces, logprobs, closedAs, ...transcript } = stored.transcript;
  const items = [
    ...(isRecord(reasoning) ? [{ ...reasoning, kind: "reasoning", logprobs: null }] : []),
    ...(hasItem === true ? [{ kind: "message", pieces, logprobs, closedAs }] : []),
  ];
  return { ...stored, version: 2, transcript: { ...transcript, items } };
}
