import { configDefaults, defineConfig } from "vitest/config";

/** Folders whose tests leave nothing behind in their process. */
const SHARED = [
  "config",
  "engine",
  "generation",
  "metrics",
  "model",
  "onnx",
  "prefix",
  "sampling",
  "server",
  "sessions",
].map((folder) => `test/${folder}/**/*.test.ts`);

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
    projects: [
      // Loading the sources anew for each file would take a third of these tests' time.
      { extends: true, test: { name: "shared", isolate: false, include: SHARED } },
      {
        extends: true,
        test: { name: "isolated", include: ["test/**/*.test.ts"], exclude: [...configDefaults.exclude, ...SHARED] },
      },
    ],
  },
});
