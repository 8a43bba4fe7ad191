/**
 * The soak: users who come, fork, leave in the middle and come back, on a server that is ended and killed under them and
 * keeps its states on the disk. Every stream must end once, nothing acknowledged be lost, no continuation differ from a cold
 * run, slots come back, and memory stay flat.
 */
import { strict as assert } from "node:assert";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { SeededRandom } from "../../sampling/random.ts";
import type { BenchContext } from "../context.ts";
import { atLeast, atMost, type Figure, median, slope } from "../report.ts";
import { serveFlags } from "../rig.ts";
import { withScratchDir } from "../scratch.ts";
import { Book, type Violation } from "./soak-book.ts";
import { SoakServer } from "./soak-server.ts";
import { SocketUser } from "./soak-socket.ts";
import { SessionUser } from "./soak-user.ts";
import { SoakWorld } from "./soak-world.ts";
import { withState } from "./state-parts.ts";

const NUM_SESSION_USERS = 16;
const NUM_SOCKET_USERS = 4;
/** In the first half; in the second one the same process lives on, so that its memory says something. */
const NUM_RESTARTS = 10;
const NUM_QUIET_CHECKS = 10;
const SAMPLE_MS = 2000;
const SEED = 1;
const MIB = 2 ** 20;
/** Of resident memory, from the second third of the long life to its end. */
const MAX_GROWTH_PERCENT = 5;
/** In 8 bits without our own operators results depend a little on how many run together. */
const PLAIN_TOLERANCE = 0.3;

const VIOLATIONS: readonly Violation[] = [
  "wrong end",
  "lost state",
  "wrong continuation",
  "unexpected refusal",
  "slots not given back",
];

export function benchSoak(context: BenchContext): Promise<Figure[]> {
  return withScratchDir(context.cacheDir, "soak", (dir) =>
    withState(context, context.modelDir, async ({ engine, manifest, stateBytes, tokenizer }) => {
      const server = new SoakServer(flagsOf(context, dir));
      const tolerance = context.kernels === undefined ? PLAIN_TOLERANCE : 0;
      const world = new SoakWorld({
        server,
        book: new Book(context.print),
        cold: { engine, vocabSize: tokenizer.vocabSize, tolerance },
        model: { modelHash: manifest.modelHash, stateBytes },
      });
      try {
        return await soak(context, world);
      } finally {
        await server.stop();
      }
    }),
  );
}

/** Little memory, so that what is kept comes from the disk as often as not. */
function flagsOf(context: BenchContext, dir: string): string[] {
  return [
    ...["--model", context.modelDir, "--max-batch", "8", "--max-queue", "16"],
    ...["--store-dir", join(dir, "store"), "--session-bytes", "8MiB", "--prefix-bytes", "8MiB"],
    ...["--resume-ms", "3000", "--shutdown-ms", "500"],
    ...serveFlags(context),
  ];
}

async function soak({ soakMinutes, print }: BenchContext, world: SoakWorld): Promise<Figure[]> {
  const { server, book } = world;
  const sessionUsers = Array.from({ length: NUM_SESSION_USERS }, (_, i) => new SessionUser(world, `u${i}`, SEED + i));
  const socketUsers = Array.from({ length: NUM_SOCKET_USERS }, (_, i) => new SocketUser(world, `w${i}`, -SEED - i));
  const lives = Promise.all([...sessionUsers, ...socketUsers].map((user) => world.live(() => user.act())));
  const failure = lives.then(
    () => undefined,
    (error: unknown) => error ?? new Error("a user of the soak failed"),
  );
  const work = direct(world, (soakMinutes * 60_000) / 2, print);
  // A user that throws is a bug of the soak's own: it ends there.
  const failed = await Promise.race([work.then(() => undefined), failure]);
  if (failed !== undefined) throw failed;
  const { samples, exitCodes } = await work;
  world.end();
  world.release();
  await lives;
  for (const user of sessionUsers) await user.finish();
  await checkQuiet(world);
  for (const [what, count] of [...book.counts].sort()) print(`${what}: ${count}`);
  return figuresOf(book, samples, exitCodes, server.life);
}

interface Sample {
  readonly atMs: number;
  readonly bytes: number;
}

/** First restarts at random moments, then one long life; quiet moments in both. */
async function direct(world: SoakWorld, halfMs: number, print: (line: string) => void) {
  const { server } = world;
  const random = new SeededRandom(SEED);
  const exitCodes: number[] = [];
  for (let i = 0; i < NUM_RESTARTS; i++) {
    await sleep((halfMs / NUM_RESTARTS) * (0.5 + random.next()));
    if (i % 3 === 2) await checkQuiet(world);
    const signal = i % 2 === 0 ? "SIGTERM" : "SIGKILL";
    const exitCode = await server.restart(signal);
    if (exitCode !== null) exitCodes.push(exitCode);
    print(`restart ${i + 1} of ${NUM_RESTARTS}, ${signal}: ${summary(world.book)}`);
  }
  const samples: Sample[] = [];
  const startMs = performance.now();
  for (let i = 0; i < NUM_QUIET_CHECKS; i++) {
    while (performance.now() - startMs < ((i + 1) * halfMs) / NUM_QUIET_CHECKS) {
      await sleep(SAMPLE_MS);
      samples.push({ atMs: performance.now() - startMs, bytes: await server.metric("process_resident_memory_bytes") });
    }
    await checkQuiet(world);
    print(`quiet ${i + 1} of ${NUM_QUIET_CHECKS}: ${summary(world.book)}; ${lastOf(samples)}`);
  }
  return { samples, exitCodes };
}

async function checkQuiet(world: SoakWorld): Promise<void> {
  await world.hold();
  const left = await world.server.leftInUse();
  if (left !== "") world.book.report("slots not given back", left);
  world.release();
}

function figuresOf(book: Book, samples: readonly Sample[], exitCodes: readonly number[], numLives: number): Figure[] {
  assert(samples.length > 0, "memory was looked at");
  const settled = samples.slice(Math.floor(samples.length / 3));
  const points = settled.map(({ atMs, bytes }) => ({ x: atMs / 60_000, y: bytes }));
  const perMinute = slope(points);
  const minutes = points.at(-1)!.x - points[0]!.x;
  const typical = median(points.map(({ y }) => y));
  const count = (name: string, what = name): Figure => ({ name, value: book.counted(what), unit: "" });
  return [
    { name: "server processes", value: numLives, unit: "" },
    count("streams that ended as asked", "streams finished"),
    count("streams that the client left", "streams left"),
    count("streams that ended with an error, the server shutting down", "streams failed"),
    count("streams cut off by a server that was killed, or that was not there", "streams broken"),
    count("forks"),
    count("forks of a session that answered"),
    {
      name: "responses over WebSocket",
      value: book.counted("responses completed") + book.counted("responses incomplete"),
      unit: "",
    },
    count("of which cut off, and fetched from the last event on", "responses taken up again"),
    count("sessions verified and deleted"),
    {
      name: "sampled tokens compared with a cold run",
      value: book.counted("tokens compared"),
      unit: "",
      ...atLeast(1),
    },
    ...VIOLATIONS.map((what) => ({ name: what, value: book.reported(what).length, unit: "", ...atMost(0) })),
    {
      name: "exits on SIGTERM with another code than 0",
      value: exitCodes.filter((code) => code !== 0).length,
      unit: "",
      ...atMost(0),
    },
    { name: "resident memory, median", value: typical / MIB, unit: "MiB" },
    { name: "its slope", value: perMinute / MIB, unit: "MiB/min" },
    {
      name: `its growth in the last ${minutes.toFixed(1)} minutes`,
      value: ((perMinute * minutes) / typical) * 100,
      unit: "%",
      ...atMost(MAX_GROWTH_PERCENT),
    },
  ];
}

function summary(book: Book): string {
  const wrong = VIOLATIONS.map((what) => `${book.reported(what).length} ${what}`).join(", ");
  return `${book.counted("streams finished")} streams, ${book.counted("tokens compared")} tokens compared; ${wrong}`;
}

function lastOf(samples: readonly Sample[]): string {
  return `${Math.round((samples.at(-1)?.bytes ?? 0) / MIB)} MiB`;
}
