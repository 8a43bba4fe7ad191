/** A model compiled for a test: both of its graphs, each in a session of its own. */
import { rm } from "node:fs/promises";
import { compileModel } from "../../src/compiler/compile.ts";
import type { Manifest, Precision } from "../../src/model/artifact.ts";
import type { StatePrecision } from "../../src/model/state.ts";
import { temporaryFolder } from "../helpers/checkpoints.ts";
import { GraphSession, type States } from "./graph-session.ts";

export class CompiledGraphs {
  readonly dir: string;
  readonly manifest: Manifest;
  readonly graph: GraphSession;
  /** Of single steps. */
  readonly decode: GraphSession;

  private constructor(dir: string, manifest: Manifest, [graph, decode]: readonly [GraphSession, GraphSession]) {
    this.dir = dir;
    this.manifest = manifest;
    this.graph = graph;
    this.decode = decode;
  }

  static async of(modelDir: string, precision: Precision, statePrecision?: StatePrecision): Promise<CompiledGraphs> {
    const dir = temporaryFolder();
    const states = statePrecision && { statePrecision };
    const manifest = await compileModel({ modelDir, precision, ...states, outDir: dir });
    const graph = await GraphSession.open(dir, manifest);
    return new CompiledGraphs(dir, manifest, [graph, await GraphSession.open(dir, manifest, manifest.decodeGraph)]);
  }

  /**
   * Logits of every token of one sequence, read in passes of the given lengths; passes of one token
   * go through `single`.
   */
  async readInPasses(
    tokenIds: readonly number[],
    lengths: readonly number[],
    single = this.decode,
  ): Promise<{ logits: Float32Array[]; states: States }> {
    const logits: Float32Array[] = [];
    let states = this.graph.emptyStates(1);
    let start = 0;
    for (const length of lengths) {
      const session = length === 1 ? single : this.graph;
      const result = await session.step([tokenIds.slice(start, start + length)], states);
      logits.push(...result.logits);
      states = result.states;
      start += length;
    }
    return { logits, states };
  }

  async close(): Promise<void> {
    await this.graph.close();
    await this.decode.close();
    await rm(this.dir, { recursive: true });
  }
}
