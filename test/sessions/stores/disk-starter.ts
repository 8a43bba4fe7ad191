/**
 * The process that `disk-store.test.ts` starts twice: opens a folder when it is told to, and says
 * what came of it.
 */
import { DenseMambaError } from "../../../src/errors.ts";
import { DiskStore } from "../../../src/sessions/stores/disk-store.ts";

let store: DiskStore | undefined;

async function open(): Promise<string> {
  const model = { modelHash: "m", stateBytes: 8 };
  try {
    store = await DiskStore.open({ dir: process.argv[2]!, maxBytes: 1e6, model, nowMs: Date.now });
    return "opened";
  } catch (error) {
    return error instanceof DenseMambaError ? error.code : String(error);
  }
}

async function close(): Promise<string> {
  await store?.close();
  store = undefined;
  return "closed";
}

process.on("message", async (what) => process.send!(await (what === "open" ? open() : close())));
