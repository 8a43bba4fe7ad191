/** Makes the picture that README.md opens with: `npm run page:picture`. Needs a build. */
import { stat } from "node:fs/promises";
import { expect, it } from "vitest";
import { launchChromium } from "../helpers/chromium.ts";
import { ServedProcess } from "../helpers/served-process.ts";
import { Tab } from "./browser.ts";

const PICTURE = "docs/page.png";

it.runIf(process.env.PAGE_PICTURE)("the page has its picture taken", async () => {
  const server = await ServedProcess.start(process.execPath, ["serve", "--port", "0", "--cache-dir", ".cache"]);
  const browser = await launchChromium();
  try {
    await using tab = await Tab.open(browser, server.url, { viewport: { width: 1200, height: 720 } });
    await tab.setNumber("Max tokens", 48);
    await tab.setNumber("Temperature", 0.7);
    await tab.setNumber("Seed", 3);
    await tab.say("Can you tell me a tale about a king?");
    await tab.say("What did he do then?");
    await tab.setNumber("Seed", 5);
    await tab.answers.last().getByRole("button", { name: "Retry" }).click();
    await tab.ended();
    await tab.page.getByLabel("Name of this state").fill("the-king");
    await tab.button("Keep as a session").click();
    await tab.button("Download the-king").waitFor();
    await tab.treeItems.first().click();
    await tab.setNumber("Samples", 2);
    await tab.say("And the queen?");
    await tab.setNumber("Seed", "");
    await tab.page.locator("#settings").evaluate((panel) => {
      panel.scrollTop = 0;
    });
    await tab.page.getByLabel("Message", { exact: true }).fill("And then?");
    await tab.page.getByText(/^\d+%$/).waitFor();
    await tab.page.screenshot({ path: PICTURE });
  } finally {
    await browser.close();
    await server.stop();
  }
  expect((await stat(PICTURE)).size).toBeLessThanOrEqual(150_000);
});
