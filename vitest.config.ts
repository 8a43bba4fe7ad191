import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/helpers/global-setup.ts"],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // What is polled for comes when it comes, on a busy machine too.
    expect: { poll: { timeout: 20_000 } },
    // Real processes, sockets and clocks on a machine that others use too: one more try, which the report shows as such.
    retry: 1,
    // Two cores are the target machine: more workers than that only make timeouts.
    maxWorkers: 2,
  },
});
