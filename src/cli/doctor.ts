/**
 * `densemamba doctor`: what a server would find here (CPU, memory, kernels, CUDA, cache, stores,
 * hub), and what to do where something is missing. Loads no model, and writes nothing but the
 * kernels that a start would build.
 */
import { constants, existsSync } from "node:fs";
import { access, readdir } from "node:fs/promises";
import { cpus, totalmem } from "node:os";
import path from "node:path";
import { openKernelLibrary } from "../app/kernels.ts";
import { DEVICE_FACTS } from "../app/load-model.ts";
import { memoryLimit, usableCores } from "../app/machine.ts";
import { programVersion, readHubSettings } from "../config/process.ts";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import { ValkeyConnection } from "../sessions/stores/valkey-connection.ts";
import { formatBytes, type Terminal, write } from "./terminal.ts";

/** `lacking`: a server starts, with less than it could have; `broken`: it would not start. */
export type Verdict = "ok" | "lacking" | "broken";

export interface Finding {
  readonly name: string;
  readonly verdict: Verdict;
  readonly text: string;
  /** What to do. */
  readonly advice?: string;
}

/** @throws `invalid_config` if something is broken, after all has been reported */
export async function doctor(config: Config, { json }: { readonly json: boolean }, terminal: Terminal): Promise<void> {
  const findings = [
    program(),
    machine(),
    memory(),
    await kernels(config),
    await cuda(config),
    await cache(config),
    ...(config.storeDir === undefined ? [] : [await folder(config.storeDir)]),
    ...(config.valkeyUrl === undefined ? [] : [await valkey(config.valkeyUrl, config.valkeyTimeoutMs)]),
    hub(),
  ];
  const lines = findings.flatMap(({ name, verdict, text, advice }) => [
    `${verdict.padEnd(8)}${name.padEnd(10)}${text}`,
    ...(advice === undefined ? [] : [`${" ".repeat(18)}→ ${advice}`]),
  ]);
  await write(terminal.stdout, json ? `${JSON.stringify(findings, null, 2)}\n` : `${lines.join("\n")}\n`);
  const broken = findings.filter(({ verdict }) => verdict === "broken").map(({ name }) => name);
  if (broken.length === 0) return;
  throw new DenseMambaError("invalid_config", `a server would not start here: ${broken.join(", ")}`);
}

function program(): Finding {
  const text = `densemamba ${programVersion()}, Node ${process.version}, ${process.platform}/${process.arch}`;
  return { name: "program", verdict: "ok", text };
}

function machine(): Finding {
  const [cpu] = cpus();
  const cores = usableCores();
  return { name: "CPU", verdict: "ok", text: `${cpu?.model.trim() || "unknown"}, ${cores} cores may be used` };
}

function memory(): Finding {
  const [limit, total] = [memoryLimit(), totalmem()];
  const text = limit < total ? `limited to ${formatBytes(limit)} of ${formatBytes(total)}` : formatBytes(total);
  return { name: "memory", verdict: "ok", text };
}

async function kernels(config: Config): Promise<Finding> {
  const name = "kernels";
  if (config.kernels === "off")
    return { name, verdict: "lacking", text: "are turned off", advice: "drop --kernels off" };
  try {
    const library = await openKernelLibrary(config, "host", () => undefined);
    return { name, verdict: "ok", text: `${library.instructionSet}, ${library.path}` };
  } catch (error) {
    const advice = `install a C compiler (gcc or clang), or name one with --c-compiler, or a library with --kernel-library`;
    return { name, verdict: "lacking", text: `plain ONNX: ${messageOf(error)}`, advice };
  }
}

async function cuda({ device }: Config): Promise<Finding> {
  const verdict = device === "cuda" ? "broken" : "ok";
  const report = DEVICE_FACTS.hasCudaProvider() ? await DEVICE_FACTS.inspectCuda() : undefined;
  if (report === undefined) {
    const advice = device === "cuda" ? "see docs/gpu.md" : "without a GPU nothing; with one see docs/gpu.md";
    return { name: "CUDA", verdict, text: "this ONNX Runtime has no CUDA provider", advice };
  }
  if (!report.isUsable) return { name: "CUDA", verdict, text: report.problem, advice: report.details };
  return { name: "CUDA", verdict: "ok", text: `${report.device.name}, sm_${report.device.capability}` };
}

async function cache({ cacheDir }: Config): Promise<Finding> {
  const advice = "name another folder with --cache-dir; a compiled model needs none";
  return writable("cache", cacheDir, advice);
}

async function folder(dir: string): Promise<Finding> {
  return writable("store", dir, "give the folder to this user, or name another one with --store-dir");
}

/** The folder itself, or the nearest one above it that exists. */
async function writable(name: string, dir: string, advice: string): Promise<Finding> {
  let nearest = path.resolve(dir);
  while (!existsSync(nearest)) nearest = path.dirname(nearest);
  try {
    await access(nearest, constants.W_OK | constants.X_OK);
    await readdir(nearest);
    return { name, verdict: "ok", text: nearest === path.resolve(dir) ? dir : `${dir}, to be created` };
  } catch (error) {
    return { name, verdict: "broken", text: `${dir} cannot be written: ${messageOf(error)}`, advice };
  }
}

async function valkey(url: string, timeoutMs: number): Promise<Finding> {
  const connection = new ValkeyConnection({ url, timeoutMs });
  try {
    await connection.waitForConnection();
    await connection.run((redis) => redis.ping());
    // Without user and password.
    return { name: "Valkey", verdict: "ok", text: new URL(url).host };
  } catch (error) {
    const advice = "check address, password and certificate; a server starts without it unless --store-required";
    return { name: "Valkey", verdict: "lacking", text: messageOf(error), advice };
  } finally {
    connection.close();
  }
}

/** Asks nobody. */
function hub(): Finding {
  try {
    const { endpoint, token, cacheDir, offline, proxy } = readHubSettings();
    const how = offline ? "offline" : `${endpoint}${proxy ? " through a proxy" : ""}${token ? ", with a token" : ""}`;
    return { name: "hub", verdict: "ok", text: `${how}; cache ${cacheDir}` };
  } catch (error) {
    return { name: "hub", verdict: "lacking", text: messageOf(error), advice: "only models on the hub need it" };
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
