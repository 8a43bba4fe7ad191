/**
 * Runs a compiled artifact through onnxruntime-node alone, states carried by the test: the graph's
 * contract without any of our runtime.
 */
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { Manifest } from "../../src/model/artifact.ts";
import { narrowF16, widenF16 } from "../../src/model/dtypes.ts";
import { numElements } from "../../src/model/state.ts";

/** Of states that are kept in f16 too: widened, which loses nothing. */
export type States = Map<string, Float32Array>;

export interface StepResult {
  /** [R][D] */
  readonly hidden: Float32Array[];
  /** [R][V] */
  readonly logits: Float32Array[];
  readonly topLogits: Float32Array[];
  readonly topIds: number[][];
  readonly logSumExp: Float32Array;
  readonly temperedLogSumExp: Float32Array;
  readonly states: States;
}

export class GraphSession {
  readonly manifest: Manifest;
  readonly #session: InferenceSession;

  private constructor(manifest: Manifest, session: InferenceSession) {
    this.manifest = manifest;
    this.#session = session;
  }

  /** `graph` is one of the manifest's two. */
  static async open(dir: string, manifest: Manifest, graph = manifest.graph): Promise<GraphSession> {
    const session = await InferenceSession.create(join(dir, graph), { intraOpNumThreads: 1, interOpNumThreads: 1 });
    return new GraphSession(manifest, session);
  }

  /** States of `batch` sequences that have read nothing. */
  emptyStates(batch: number): States {
    return new Map(
      this.manifest.state.map(({ name, shape }) => [name, new Float32Array(batch * numElements(shape))] as const),
    );
  }

  /**
   * One pass over `tokens` [B][T]; logits for the flattened `rows`, or for every row. The given
   * states stay as they are.
   */
  async step(
    tokens: readonly (readonly number[])[],
    states: States,
    rows?: readonly number[],
    temperature = 1,
  ): Promise<StepResult> {
    const batch = tokens.length;
    const numSteps = tokens[0]!.length;
    const logitRows = rows ?? Array.from({ length: batch * numSteps }, (_, i) => i);
    const feeds: Record<string, Tensor> = {
      input_ids: new Tensor("int64", BigInt64Array.from(tokens.flat(), BigInt), [batch, numSteps]),
      logit_rows: new Tensor("int64", BigInt64Array.from(logitRows, BigInt), [logitRows.length]),
      temperature: new Tensor("float32", new Float32Array(logitRows.length).fill(temperature), [logitRows.length]),
    };
    for (const { name, shape, dtype } of this.manifest.state) {
      const values = states.get(name)!;
      const past = dtype === "f16" ? narrowF16(values) : values;
      feeds[`past_${name}`] = new Tensor(dtype === "f16" ? "float16" : "float32", past, [batch, ...shape]);
    }
    const out = await this.#session.run(feeds);
    const floats = (name: string) => out[name]!.data as Float32Array;
    const split = (name: string) => {
      const width = out[name]!.dims[1]!;
      return logitRows.map((_, r) => floats(name).slice(r * width, (r + 1) * width));
    };
    const ids = out.top_ids!.data as BigInt64Array;
    const numIds = out.top_ids!.dims[1]!;
    return {
      hidden: split("hidden"),
      logits: split("logits"),
      topLogits: split("top_logits"),
      topIds: logitRows.map((_, r) => Array.from(ids.slice(r * numIds, (r + 1) * numIds), Number)),
      logSumExp: floats("log_sum_exp"),
      temperedLogSumExp: floats("tempered_log_sum_exp"),
      states: new Map(
        this.manifest.state.map(({ name, dtype }) => {
          const present = out[`present_${name}`]!.data;
          return [name, dtype === "f16" ? widenF16(present as Uint16Array) : (present as Float32Array)] as const;
        }),
      ),
    };
  }

  async close(): Promise<void> {
    await this.#session.release();
  }
}
