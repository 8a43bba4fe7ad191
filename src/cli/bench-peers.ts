/** `densemamba bench-peers`: llama.cpp and node-llama-cpp beside us, measured by `bench/peers/`. */
import { PEER_SHAPES, runPeers } from "../bench/peers/peers.ts";
import { peersSection } from "../bench/peers/report.ts";
import { PEER_TESTS } from "../bench/peers/result.ts";
import { BENCH_PRECISIONS } from "../bench/rig.ts";
import type { Config } from "../config.ts";
import { openRig, pick, printTo } from "./bench.ts";
import { writePage } from "./performance-page.ts";
import type { Terminal } from "./terminal.ts";
import { programVersion } from "./version.ts";

export interface BenchPeersOptions {
  /** Of each of these, none means all. */
  readonly shape?: readonly string[];
  readonly test?: readonly string[];
  readonly weights?: readonly string[];
  readonly rounds: number;
  readonly jobs: number;
  readonly installOnly: boolean;
  readonly write: boolean;
}

/** @throws `invalid_value` for a shape, test or precision that there is not; Error if a peer cannot be built */
export async function benchPeers(config: Config, options: BenchPeersOptions, terminal: Terminal): Promise<void> {
  const print = printTo(terminal);
  const chosen = <T extends string>(flag: string, known: readonly T[], names: readonly string[] = []) =>
    names.length > 0 ? names.map((name) => pick(flag, known, name)) : known;
  const choice = {
    shapes: chosen("--shape", PEER_SHAPES, options.shape),
    tests: chosen("--test", PEER_TESTS, options.test),
    precisions: chosen("--weights", BENCH_PRECISIONS, options.weights),
  };
  const result = await runPeers({
    ...choice,
    ...(await openRig(config, print)),
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
