/** The page in a browser, over the real server and the default model. Needs a build. */
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openRunner } from "../../src/runtime/open.ts";
import type { RunnerOptions } from "../../src/runtime/runner.ts";
import { hasChromium, launchChromium } from "../helpers/chromium.ts";
import { type RealServer, startRealServer } from "../helpers/real-server.ts";
import { SIZES, Tab } from "./browser.ts";

describe.runIf(hasChromium)("the page", () => {
  let browser: Browser;
  let server: RealServer;

  beforeAll(async () => {
    const limits = { maxBatch: 8, maxQueue: 16, prefillChunk: 64 };
    const open = (options: RunnerOptions) => openRunner("native", options);
    [browser, server] = await Promise.all([
      launchChromium(),
      startRealServer(open, limits, undefined, { maxOutputTokens: 20_000 }),
    ]);
  });
  afterAll(async () => {
    await browser?.close();
    await server?.close();
  });

  it.each(SIZES)("does all that it offers at $width x $height", async (viewport) => {
    await using tab = await Tab.open(browser, server.url, { viewport });
    await tab.page.getByText("Ready").waitFor();
    await tab.setNumber("Most tokens", 24);
    await tab.setNumber("Seed", 1);
    await tab.say("Tell me a tale about a king.");
    await tab.page.screenshot({ path: `/tmp/page-${viewport.width}.png` });
    await tab.say("And then?");
    expect(await tab.answers.count()).toBe(2);
    await tab.page.screenshot({ path: `/tmp/page-${viewport.width}-2.png` });
    await tab.panel("States");
    await tab.page.screenshot({ path: `/tmp/page-${viewport.width}-3.png` });
    await tab.panel("Settings");
    await tab.page.screenshot({ path: `/tmp/page-${viewport.width}-4.png` });
    await tab.accessibility();
    expect(tab.complaints).toEqual([]);
  });
});
