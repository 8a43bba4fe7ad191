/**
 * What tests of runners on the simulated device share: it is loaded, and after every test all has
 * been given back.
 */
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import type { NativeRunner } from "../../src/runtime/native/native-runner.ts";
import { type OpenOptions, SimulatedCuda, type SimulatedRunner } from "./simulated-cuda.ts";

export interface Harness {
  /** From `beforeAll` on. */
  readonly cuda: SimulatedCuda;
  /** A runner that is closed after the test. What opening it took is out of the book. */
  open(modelDir: string, options?: OpenOptions): Promise<SimulatedRunner>;
  /** For one that was opened otherwise. */
  closeAfterwards(runner: NativeRunner): void;
}

export function onSimulatedCuda(): Harness {
  let loaded: SimulatedCuda;
  const opened: NativeRunner[] = [];
  beforeAll(async () => {
    loaded = await SimulatedCuda.load();
  }, 240_000);
  afterAll(() => loaded.removeArtifacts());
  beforeEach(() => loaded.reset());
  // Of every test: the device was asked for nothing that it would refuse, and all is given back.
  afterEach(async () => {
    for (const runner of opened.splice(0)) await runner.close();
    const { illegal, unsupported, numBlocks, handles } = loaded.book();
    expect({ illegal, unsupported, numBlocks, handles }).toEqual({
      illegal: [],
      unsupported: [],
      numBlocks: 0,
      handles: {},
    });
  });
  return {
    get cuda() {
      return loaded;
    },
    async open(modelDir, options = {}) {
      const simulated = await loaded.open(modelDir, options);
      opened.push(simulated.runner);
      loaded.reset();
      return simulated;
    },
    closeAfterwards: (runner) => void opened.push(runner),
  };
}
