/** What is kept of a response beside its state: all that retrieving it, replaying its events and listing its input takes. */
import * as z from "zod";
import { DenseMambaError } from "../../errors.ts";
import type { InputItem } from "./input-items.ts";
import type { ResponseHead, ResponseSettings } from "./response.ts";
import type { TranscriptState } from "./transcript.ts";

/** JSON-serialisable. */
export interface ResponseRecord {
  readonly version: 1;
  readonly head: ResponseHead;
  readonly settings: ResponseSettings;
  readonly input: readonly InputItem[];
  readonly transcript: TranscriptState;
  /** Of a response that had not ended when it was kept: when, at the latest, it will have. */
  readonly endsByMs?: number;
}

const record = z.object({
  version: z.literal(1),
  head: z.object({ id: z.string(), itemId: z.string(), createdS: z.number(), model: z.string() }),
  settings: z.object({
    instructions: z.string().nullable(),
    previousResponseId: z.string().nullable(),
    maxOutputTokens: z.number().nullable(),
    temperature: z.number(),
    topP: z.number(),
    topLogprobs: z.number(),
    truncation: z.enum(["auto", "disabled"]),
    store: z.boolean(),
    background: z.boolean(),
    generates: z.boolean(),
    metadata: z.record(z.string(), z.string()),
    parallelToolCalls: z.boolean(),
    toolChoice: z.enum(["auto", "none"]).optional(),
    tools: z.array(z.record(z.string(), z.unknown())).optional(),
  }),
  input: z.array(
    z.object({
      id: z.string(),
      role: z.enum(["system", "developer", "user", "assistant"]),
      texts: z.array(z.string()),
    }),
  ),
  transcript: z.object({
    numLead: z.int().min(0).max(3),
    hasItem: z.boolean(),
    pieces: z.array(z.string()),
    logprobs: z.array(z.string()).nullable(),
    closedAs: z.enum(["completed", "incomplete"]).nullable(),
    status: z.enum(["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]),
    usage: z
      .object({
        promptTokens: z.number(),
        cachedTokens: z.number(),
        completionTokens: z.number(),
        stateBytes: z.number(),
      })
      .nullable(),
    error: z.object({ code: z.string(), message: z.string() }).nullable(),
    completedAtS: z.number().nullable(),
  }),
  endsByMs: z.number().optional(),
});

/** @throws `invalid_snapshot` if it is no such record */
export function parseRecord(id: string, kept: unknown): ResponseRecord {
  const parsed = record.safeParse(kept);
  if (parsed.success) return parsed.data as ResponseRecord;
  throw new DenseMambaError(
    "invalid_snapshot",
    `the kept record of response ${id} is malformed: ${parsed.error.message}`,
    { cause: parsed.error },
  );
}
