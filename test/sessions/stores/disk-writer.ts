/**
 * The process that `disk-store.test.ts` kills: puts snapshots and says what has been acknowledged.
 */
import { DiskStore } from "../../../src/sessions/stores/disk-store.ts";

const [dir, fillsDisk] = [process.argv[2]!, process.argv[3] === "true"];
const stateBytes = 200_000;
const store = await DiskStore.open({ dir, maxBytes: 1e9, model: { modelHash: "m", stateBytes }, nowMs: Date.now });

function put(key: string, value: number): Promise<void> {
  const state = new Uint8Array(stateBytes).fill(value % 256);
  return store.put(key, { modelHash: "m", tokenIds: [1], position: 1, state, conversation: { value } });
}

if (fillsDisk) {
  const empty = { modelHash: "m", tokenIds: [], position: 0, state: new Uint8Array(0), conversation: "small" };
  await store.put("small", empty);
  const error: unknown = await put("large", 1).catch((reason: unknown) => reason);
  const { code, message } = error as { code?: string; message?: string };
  const kept = (await store.get("small"))?.conversation === "small" && !(await store.has("large"));
  process.send!({ error: `${code}: ${message}`, kept }, () => process.exit(0));
} else {
  const write = async (lane: number) => {
    for (let value = 1; ; value++) {
      const key = `lane ${lane} ${value % 3}`;
      await put(key, value);
      process.send!({ key, value });
    }
  };
  await Promise.all([0, 1, 2].map(write));
}
