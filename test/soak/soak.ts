/**
 * The soak test, `npm run soak`: clients that come, fork, leave in the middle and return, on a
 * server with a disk store that is restarted and killed under them. Every stream ends exactly once,
 * nothing acknowledged is lost, no continuation differs from a cold run, slots are released, and
 * memory stays flat. SOAK_MINUTES says how long it lasts.
 */
import { strict as assert } from "node:assert";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, it } from "vitest";
import { withScratchDir } from "../../src/bench/cleanup.ts";
import { type BenchConfig, serveFlags } from "../../src/bench/config.ts";
import { withConversations } from "../../src/bench/conversations.ts";
import { median, slope } from "../../src/bench/figures.ts";
import { benchConfig } from "../../src/cli/bench.ts";
import { readConfig } from "../../src/config/process.ts";
import { SeededRandom } from "../../src/sampling/random.ts";
import { SoakFixture } from "./fixture.ts";
import { Ledger, VIOLATIONS } from "./ledger.ts";
import { SoakServer } from "./server.ts";
import { SessionUser } from "./session-user.ts";
import { SocketUser } from "./socket-user.ts";

const MINUTES = Number(process.env.SOAK_MINUTES ?? 20);
const NUM_SESSION_USERS = 16;
const NUM_SOCKET_USERS = 4;
/**
 * In the first half; in the second the same process lives on, so that its memory means something.
 */
const NUM_RESTARTS = 10;
const NUM_PAUSES = 10;
const SAMPLE_MS = 2000;
const SEED = 1;
const MIB = 2 ** 20;
/** Of resident memory, from the second third of the long life to its end. */
const MAX_GROWTH = 0.05;
/** A process that has just started still grows. */
const MIN_MINUTES_FOR_MEMORY = 10;
/**
 * In 8 bits without our own operators, results depend a little on how many sequences run together.
 */
const PLAIN_TOLERANCE = 0.3;

const print = (line: string) => console.log(line);

it("a server loses nothing and leaks nothing while it is restarted and killed under twenty clients", async () => {
  expect(MINUTES, "SOAK_MINUTES").toBeGreaterThan(0);
  const settings = readConfig({}, undefined).config;
  const { model } = settings;
  const config = await benchConfig(settings, print);
  await withScratchDir(config.cacheDir, "soak", (dir) =>
    withConversations(config, model, async ({ engine, manifest, stateBytes, tokenizer }) => {
      const server = new SoakServer(flagsOf(config, model, dir));
      const tolerance = config.kernels === undefined ? PLAIN_TOLERANCE : 0;
      const soak = new SoakFixture({
        server,
        ledger: new Ledger(print),
        coldRun: { engine, vocabSize: tokenizer.vocabSize, tolerance },
        model: { modelHash: manifest.modelHash, stateBytes },
      });
      try {
        await run(soak, (MINUTES * 60_000) / 2);
      } finally {
        await server.stop();
      }
    }),
  );
});

/** Little memory, so that states come from the disk as often as not. */
function flagsOf(config: BenchConfig, model: string, dir: string): string[] {
  return [
    ...["--model", model, "--precision", "int8", "--max-batch", "8", "--max-queue", "16", "--log-level", "warn"],
    ...["--store-dir", join(dir, "store"), "--session-bytes", "8MiB", "--prefix-bytes", "8MiB"],
    ...["--resume-ms", "3000", "--shutdown-ms", "500"],
    ...serveFlags(config),
  ];
}

async function run(soak: SoakFixture, halfMs: number): Promise<void> {
  const sessionUsers = Array.from({ length: NUM_SESSION_USERS }, (_, i) => new SessionUser(soak, `u${i}`, SEED + i));
  const socketUsers = Array.from({ length: NUM_SOCKET_USERS }, (_, i) => new SocketUser(soak, `w${i}`, -SEED - i));
  const users = Promise.all([...sessionUsers, ...socketUsers].map((user) => soak.run(() => user.act())));
  const script = async () => {
    const ends = await restartAgainAndAgain(soak, halfMs);
    return { ends, samples: await liveOn(soak, halfMs) };
  };
  // A user that throws is a fault of the test itself, which ends there.
  const usersEnded = users.then(() => assert.fail("the users ended too early"));
  const { ends, samples } = await Promise.race([script(), usersEnded]);
  soak.end();
  await users;
  for (const user of sessionUsers) await user.finish();
  await checkReleased(soak);

  const { ledger, server } = soak;
  for (const [what, count] of [...ledger.counts].sort()) print(`${what}: ${count}`);
  const growth = growthOf(samples);
  print(`${server.life} server processes; resident memory grew by ${(growth * 100).toFixed(2)}%`);
  expect(VIOLATIONS.flatMap((what) => ledger.reported(what).map((text) => `${what}: ${text}`))).toEqual([]);
  expect(ends.filter((end) => end !== "SIGKILL" && end !== 0)).toEqual([]);
  expect(ledger.counted("tokens compared")).toBeGreaterThan(0);
  if (MINUTES >= MIN_MINUTES_FOR_MEMORY) expect(growth).toBeLessThanOrEqual(MAX_GROWTH);
}

/** At random moments. @returns how each process ended */
async function restartAgainAndAgain(soak: SoakFixture, forMs: number): Promise<(number | string)[]> {
  const random = new SeededRandom(SEED);
  const ends: (number | string)[] = [];
  for (let i = 0; i < NUM_RESTARTS; i++) {
    await sleep((forMs / NUM_RESTARTS) * (0.5 + random.next()));
    if (i % 3 === 2) await checkReleased(soak);
    const signal = i % 2 === 0 ? "SIGTERM" : "SIGKILL";
    ends.push(await soak.server.restart(signal));
    print(`restart ${i + 1} of ${NUM_RESTARTS}, ${signal}: ${summary(soak.ledger)}`);
  }
  return ends;
}

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

/** With pauses. @returns samples of resident memory */
async function liveOn(soak: SoakFixture, forMs: number): Promise<Sample[]> {
  const samples: Sample[] = [];
  const startMs = performance.now();
  for (let i = 1; i <= NUM_PAUSES; i++) {
    while (performance.now() - startMs < (i * forMs) / NUM_PAUSES) {
      await sleep(SAMPLE_MS);
      const bytes = await soak.server.metric("process_resident_memory_bytes");
      samples.push({ atMs: performance.now() - startMs, bytes });
    }
    await checkReleased(soak);
    const mebibytes = Math.round(samples.at(-1)!.bytes / MIB);
    print(`pause ${i} of ${NUM_PAUSES}: ${summary(soak.ledger)}; ${mebibytes} MiB`);
  }
  return samples;
}

async function checkReleased(soak: SoakFixture): Promise<void> {
  await soak.whilePaused(async () => {
    const left = await soak.server.leftInUse();
    if (left !== "") soak.ledger.report("slots not released", left);
  });
}

/** Of memory from the second third of the samples on, by the line through them. */
function growthOf(samples: readonly Sample[]): number {
  const points = samples.slice(Math.floor(samples.length / 3)).map(({ atMs, bytes }) => ({ x: atMs, y: bytes }));
  const spanMs = points.at(-1)!.x - points[0]!.x;
  return (slope(points) * spanMs) / median(points.map(({ y }) => y));
}

function summary(ledger: Ledger): string {
  const violations = VIOLATIONS.map((what) => `${ledger.reported(what).length} ${what}`).join(", ");
  return `${ledger.counted("streams finished")} streams, ${ledger.counted("tokens compared")} tokens compared; ${violations}`;
}
