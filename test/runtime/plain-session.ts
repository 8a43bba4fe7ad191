/**
 * The slow way to run a compiled graph, for comparison: onnxruntime-node's session on this thread,
 * new output tensors at every call, states carried over by hand. Shares no code with the runners.
 */
import path from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import type { Manifest } from "../../src/model/artifact.ts";

export class PlainSession {
  readonly #session: InferenceSession;
  #states: Record<string, Tensor>;

  static async open(artifactDir: string, manifest: Manifest, numSequences: number): Promise<PlainSession> {
    const session = await InferenceSession.create(path.join(artifactDir, manifest.graph), { logSeverityLevel: 4 });
    return new PlainSession(session, manifest, numSequences);
  }

  private constructor(session: InferenceSession, { state }: Manifest, numSequences: number) {
    this.#session = session;
    this.#states = Object.fromEntries(
      state.map(({ name, shape }) => {
        const dims = [numSequences, ...shape];
        return [name, new Tensor("float32", new Float32Array(dims.reduce((product, size) => product * size, 1)), dims)];
      }),
    );
  }

  /** @returns the logits of the last step of every sequence, [numSequences, V]. */
  async run(tokenIds: readonly number[], numSequences: number): Promise<Float32Array> {
    const numSteps = tokenIds.length / numSequences;
    const rows = Array.from({ length: numSequences }, (_, sequence) => (sequence + 1) * numSteps - 1);
    const feeds: Record<string, Tensor> = {
      input_ids: new Tensor("int64", BigInt64Array.from(tokenIds, BigInt), [numSequences, numSteps]),
      logit_rows: new Tensor("int64", BigInt64Array.from(rows, BigInt), [numSequences]),
      temperature: new Tensor("float32", new Float32Array(numSequences).fill(1), [numSequences]),
    };
    for (const [name, value] of Object.entries(this.#states)) feeds[`past_${name}`] = value;
    const outputs = await this.#session.run(feeds);
    this.#states = Object.fromEntries(
      Object.keys(this.#states).map((name) => [name, outputs[`present_${name}`] as Tensor]),
    );
    return outputs.logits?.data as Float32Array;
  }

  async close(): Promise<void> {
    await this.#session.release();
  }
}
