/**
 * An engine that says what it is told to, for tests of the text layer: each sequence's tokens come
 * from a script. Keeps what it was asked, and how each sequence ended.
 */
import { setImmediate as tick } from "node:timers/promises";
import type { Sequence, SequenceEvent, SequenceRequest } from "../../src/engine/sequence.ts";
import type { SequenceEngine } from "../../src/generation/admission.ts";
import { type ScoredToken, ScoreTable } from "../../src/sampling/logprobs.ts";
import { historyTokens } from "../../src/sessions/stores/snapshot.ts";

export interface Script {
  readonly tokenIds: readonly number[];
  /** Of each token, if log-probabilities are asked for; -1 unless given. */
  readonly logprob?: (index: number) => number;
  /** Thrown after so many tokens. */
  readonly failure?: { readonly afterTokens: number; readonly error: Error };
}

export class ScriptedEngine implements SequenceEngine {
  readonly requests: SequenceRequest[] = [];
  /** By sequence, in order of submission. */
  readonly ends: (string | undefined)[] = [];
  /** Tokens that a sequence still samples after `stop()`. */
  numOvershot = 0;
  refusal: Error | undefined;
  readonly #script: (request: SequenceRequest, index: number) => Script;
  readonly #stateBytes: number;

  constructor(script: (request: SequenceRequest, index: number) => Script, stateBytes = 24) {
    this.#script = script;
    this.#stateBytes = stateBytes;
  }

  submit(requests: readonly SequenceRequest[]): Sequence[] {
    if (this.refusal) throw this.refusal;
    return requests.map((request) => {
      const index = this.requests.push(request) - 1;
      this.ends.push(undefined);
      let isStopped = false;
      return {
        id: index,
        stop: () => {
          isStopped = true;
        },
        events: this.#run(request, index, () => isStopped),
      };
    });
  }

  async *#run(request: SequenceRequest, index: number, isStopped: () => boolean): AsyncGenerator<SequenceEvent> {
    const { tokenIds, logprob = () => -1, failure } = this.#script(request, index);
    const before = [...(request.resume?.tokenIds ?? []), ...request.promptIds];
    const { history } = request.resume ?? {};
    const captured = (ids: readonly number[], numRead: number) => ({
      ...(history && { history }),
      tokenIds: ids,
      position: historyTokens(history) + numRead,
      state: new Uint8Array(this.#stateBytes),
    });
    const score = (tokenId: number, value: number): ScoredToken => ({
      tokenId,
      logprob: value,
      top: [{ tokenId, logprob: value }],
    });
    const finish = (reason: "stop" | "length" | "aborted", sampled: readonly number[], stopTokenId?: number) => {
      this.ends[index] = reason;
      const all = [...before, ...sampled];
      return {
        type: "finished" as const,
        reason,
        ...(stopTokenId !== undefined && { stopTokenId }),
        ...(request.capture?.end && { captured: captured(all, all.length - 1) }),
        timings: {
          arrivedAtMs: 0,
          scheduledAtMs: 0,
          firstTokenAtMs: undefined,
          finishedAtMs: 0,
          numPromptTokens: before.length,
          numCachedTokens: request.resume?.position ?? 0,
          numOutputTokens: sampled.length,
        },
      };
    };

    await tick();
    yield {
      type: "prompt",
      ...(request.capture?.prompt && { captured: captured(before, before.length) }),
      ...(request.numPromptLogprobs !== undefined && {
        logprobs: tableOf(request.promptIds.map((id, i) => (i === 0 && !request.resume ? null : score(id, -0.5)))),
      }),
    };
    const sampled: number[] = [];
    let numOvershot = 0;
    while (sampled.length < request.maxTokens) {
      await tick();
      if (request.signal.aborted) return yield finish("aborted", sampled);
      if (isStopped() && numOvershot++ === this.numOvershot) return yield finish("stop", sampled);
      if (failure?.afterTokens === sampled.length) {
        this.ends[index] = "failed";
        throw failure.error;
      }
      const tokenId = tokenIds[sampled.length % tokenIds.length]!;
      const scored = request.numLogprobs === undefined ? {} : { scored: score(tokenId, logprob(sampled.length)) };
      yield { type: "token", tokenId, ...scored };
      if (request.stopTokenIds.has(tokenId)) return yield finish("stop", sampled, tokenId);
      sampled.push(tokenId);
    }
    yield finish("length", sampled);
  }
}

function tableOf(scores: readonly (ScoredToken | null)[]): ScoreTable {
  const table = new ScoreTable(Math.max(0, ...scores.map((scored) => scored?.top.length ?? 0)));
  for (const scored of scores) table.push(scored);
  return table;
}
