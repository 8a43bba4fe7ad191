import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/helpers/build-kernels.ts"],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    // Two cores are the target machine: more workers than that only make timeouts.
    maxWorkers: 2,
  },
});
