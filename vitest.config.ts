import { configDefaults, defineConfig } from "vitest/config";

/**
 * What takes minutes by its nature: `npm test` leaves it out, `CI=true npm test` runs everything,
 * and so does `CI=true npx vitest run <file>` for one of these.
 */
const ONLY_IN_CI = [
  // Every operator, compiled with sanitizers for every instruction set; nvcc for five devices.
  "test/runtime/kernels-c.test.ts",
  "test/runtime/kernels-cuda.test.ts",
  // Servers that are flooded, killed and started again, on disks that fill up; all of gpu-check.sh.
  "test/app/hostile-clients.test.ts",
  "test/app/long-texts.test.ts",
  "test/app/store-folder.test.ts",
  "test/app/survival.test.ts",
  "test/bench/gpu-check.test.ts",
  // Two servers that are started again one after the other, under load.
  "test/replicas/rolling-restart.test.ts",
  // Long answers and conversations in a browser.
  "test/web/long.test.ts",
];

/** What leaves something behind in its process, or asks what else is in it: a process for each file. */
const ISOLATED = [
  "test/compiler/own-operators.test.ts", // replaces a module
  "test/runtime/*.test.ts", // libraries that are loaded once, memory, garbage
  "test/tokenizer/**/*.test.ts", // how long the event loop stands still, a time zone
];

/** Tests of what test/cuda-device/global-setup.ts compiles. */
const CUDA = [
  "test/bench/gpu-check.test.ts",
  "test/compiler/cuda.test.ts",
  "test/compiler/half-states.test.ts",
  "test/cuda-device/*.test.ts",
  "test/runtime/cuda-*.test.ts",
];

const exclude = [...configDefaults.exclude, ...(process.env.CI ? [] : ONLY_IN_CI)];

export default defineConfig({
  test: {
    globalSetup: ["test/helpers/global-setup.ts"],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // What is polled for comes when it comes, on a busy machine too.
    expect: { poll: { timeout: 20_000 } },
    // Real processes, sockets and clocks on a machine that others use too: one more try, which the report shows as such.
    retry: 1,
    // Two cores are the target machine: more workers than that only make timeouts.
    maxWorkers: 2,
    exclude,
    projects: [
      {
        // Loading the sources anew for each file would take a third of these tests' time.
        extends: true,
        test: { name: "shared", isolate: false, include: ["test/**/*.test.ts"], exclude: [...ISOLATED, ...CUDA] },
      },
      { extends: true, test: { name: "isolated", include: ISOLATED, exclude: CUDA } },
      {
        extends: true,
        test: { name: "cuda", include: CUDA, globalSetup: ["test/cuda-device/global-setup.ts"] },
      },
    ],
  },
});
