/** `densemamba bench-peers`: llama.cpp and node-llama-cpp beside us, measured by `bench/peers/`. */
import { PEER_SHAPES, runPeers } from "../bench/peers/peers.ts";
import { peersSection } from "../bench/peers/report.ts";
import type { Config } from "../config.ts";
import { openRig, pick, printTo } from "./bench.ts";
import { writePage } from "./performance-page.ts";
import type { Terminal } from "./terminal.ts";
import { programVersion } from "./version.ts";

export interface BenchPeersOptions {
  /** None means all that the peers have. */
  readonly shape?: readonly string[];
  readonly rounds: number;
  readonly jobs: number;
  readonly installOnly: boolean;
  readonly write: boolean;
}

/** @throws `invalid_value` for a shape that the peers have not; Error if a peer cannot be built */
export async function benchPeers(config: Config, options: BenchPeersOptions, terminal: Terminal): Promise<void> {
  const print = printTo(terminal);
  const shapes = (options.shape ?? []).map((name) => pick("--shape", PEER_SHAPES, name));
  const result = await runPeers({
    ...(await openRig(config, print)),
    shapes: shapes.length > 0 ? shapes : PEER_SHAPES,
    numRounds: options.rounds,
    jobs: options.jobs,
    installOnly: options.installOnly,
    version: programVersion(),
    print,
  });
  if (result === undefined) return;
  const section = peersSection(result);
  print(`\n${section.markdown}\n\n${JSON.stringify(result)}`);
  if (options.write) await writePage(section);
}
