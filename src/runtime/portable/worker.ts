/**
 * The portable runner's worker thread: onnxruntime-node's `InferenceSession`, which blocks the
 * thread it runs on, and the states, which would otherwise be copied at every step. Answers one
 * message at a time. See messages.ts.
 */
import { strict as assert } from "node:assert";
import { parentPort, workerData } from "node:worker_threads";
import { env, InferenceSession, type OnnxValue, Tensor } from "onnxruntime-node";
import { DenseMambaError } from "../../errors.ts";
import { checkGraphNames, FIXED_OUTPUTS, firstOutput, type GraphSteps } from "../graph-names.ts";
import type { HostResults } from "../run-output.ts";
import { SESSION_CONFIG } from "../session-config.ts";
import { SlotStates, slotRange } from "../slot-states.ts";
import {
  type Calls,
  type RunRequest,
  toFailure,
  type WorkerGreeting,
  type WorkerReply,
  type WorkerRequest,
  type WorkerSettings,
} from "./messages.ts";

const LOG_FATAL = 4; // failures are thrown; printing them as well would only repeat them

interface Sessions {
  readonly any: InferenceSession;
  /** For one step, if the artifact has a graph of its own for it. */
  readonly one: InferenceSession | undefined;
}

async function openSessions(settings: WorkerSettings): Promise<Sessions> {
  const { modelPath, decodeModelPath } = settings;
  return {
    any: await openSession(settings, modelPath, "any"),
    one: decodeModelPath === undefined ? undefined : await openSession(settings, decodeModelPath, "one"),
  };
}

async function openSession(settings: WorkerSettings, modelPath: string, steps: GraphSteps): Promise<InferenceSession> {
  const { manifest, numThreads } = settings;
  let session: InferenceSession;
  try {
    session = await InferenceSession.create(modelPath, {
      executionProviders: ["cpu"],
      intraOpNumThreads: numThreads,
      graphOptimizationLevel: "all",
      enableMemPattern: false,
      logSeverityLevel: LOG_FATAL,
      extra: SESSION_CONFIG,
    });
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DenseMambaError("invalid_artifact", `ONNX Runtime: ${reason}`);
  }
  checkGraphNames(manifest, steps, { inputs: session.inputNames, outputs: session.outputNames });
  return session;
}

/** One forward pass, states in place: each `present` is given its `past`'s memory to write to. */
async function run({ any, one }: Sessions, states: SlotStates, request: RunRequest): Promise<HostResults> {
  const { firstSlot, numSequences, numSteps, numRows, tokenIds, logitRows, temperatures } = request;
  const feeds: Record<string, Tensor> = {
    input_ids: new Tensor("int64", tokenIds, [numSequences, numSteps]),
    logit_rows: new Tensor("int64", logitRows, [logitRows.length]),
    temperature: new Tensor("float32", temperatures, [temperatures.length]),
  };
  const fetched = FIXED_OUTPUTS.slice(firstOutput(request));
  const fetches: Record<string, OnnxValue | null> = Object.fromEntries(fetched.map((name) => [name, null]));
  for (const tensor of states.tensors) {
    const value = new Tensor(tensor.type, slotRange(tensor, firstSlot, numSequences), [numSequences, ...tensor.shape]);
    feeds[`past_${tensor.name}`] = value;
    fetches[`present_${tensor.name}`] = value;
  }
  const session = numSteps === 1 && one !== undefined ? one : any;
  const outputs = await session.run(feeds, fetches);
  return {
    numRows,
    hidden: request.wantsHidden ? float32(outputs, "hidden", numRows) : undefined,
    logits: float32(outputs, "logits", numRows),
    topLogits: float32(outputs, "top_logits", numRows),
    topIds: int64(outputs, "top_ids", numRows),
    logSumExp: float32(outputs, "log_sum_exp", numRows),
    temperedLogSumExp: float32(outputs, "tempered_log_sum_exp", numRows),
  };
}

type OutputName = (typeof FIXED_OUTPUTS)[number];

function float32(outputs: InferenceSession.ReturnType, name: OutputName, numRows: number): Float32Array {
  const data = numRows === 0 ? new Float32Array(0) : outputs[name]?.data;
  assert(data instanceof Float32Array, `output ${name} must be float32`);
  return data;
}

function int64(outputs: InferenceSession.ReturnType, name: OutputName, numRows: number): BigInt64Array {
  const data = numRows === 0 ? new BigInt64Array(0) : outputs[name]?.data;
  assert(data instanceof BigInt64Array, `output ${name} must be int64`);
  return data;
}

async function answer(
  sessions: Sessions,
  states: SlotStates,
  request: WorkerRequest,
): Promise<Calls[keyof Calls]["result"]> {
  switch (request.kind) {
    case "run":
      return run(sessions, states, request);
    case "clearSlot":
      return void states.clear(request.slot);
    case "copySlot":
      return void states.copy(request.from, request.to);
    case "swapSlots":
      return void states.swap(request.a, request.b);
    case "readSlot":
      return states.read(request.slot);
    case "writeSlot":
      return void states.write(request.slot, request.state);
    case "close":
      await sessions.one?.release();
      return void (await sessions.any.release());
    case "die":
      return process.exit(1);
  }
}

/** The buffers of a result that may move to the other thread instead of being copied. */
function transferable(result: Calls[keyof Calls]["result"]): ArrayBuffer[] {
  if (result === undefined) return [];
  const views =
    result instanceof Uint8Array ? [result] : Object.values(result).filter((value) => ArrayBuffer.isView(value));
  return views.map((view) => view.buffer).filter((buffer) => buffer instanceof ArrayBuffer);
}

async function main(settings: WorkerSettings): Promise<void> {
  const port = parentPort;
  assert(port !== null, "worker.ts runs as a worker thread only");
  let sessions: Sessions;
  try {
    sessions = await openSessions(settings);
  } catch (error) {
    port.postMessage(toFailure(error, "invalid_artifact") satisfies WorkerGreeting);
    return;
  }
  const states = new SlotStates(settings.manifest.state, settings.numSlots);
  port.on("message", async (request: WorkerRequest) => {
    try {
      const result = await answer(sessions, states, request);
      port.postMessage({ ok: true, result } satisfies WorkerReply, transferable(result));
    } catch (error) {
      port.postMessage(toFailure(error, "runtime_fault") satisfies WorkerReply);
    }
    if (request.kind === "close") port.close();
  });
  port.postMessage({ ok: true, version: env.versions.node ?? "unknown" } satisfies WorkerGreeting);
}

await main(workerData as WorkerSettings);
