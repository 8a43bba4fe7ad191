/** The page in a browser, over the real server and the default model. Needs a build. */
import { readFile } from "node:fs/promises";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openRunner } from "../../src/runtime/open.ts";
import type { RunnerOptions } from "../../src/runtime/runner.ts";
import { hasChromium, launchChromium } from "../helpers/chromium.ts";
import { post, type RealServer, startRealServer } from "../helpers/real-server.ts";
import { SIZES, Tab } from "./browser.ts";

describe.runIf(hasChromium).each(SIZES)("the page at $width x $height", (viewport) => {
  let browser: Browser;
  let server: RealServer;
  let tab: Tab;

  beforeAll(async () => {
    const limits = { maxBatch: 8, maxQueue: 16, prefillChunk: 64 };
    const open = (options: RunnerOptions) => openRunner("native", options);
    [browser, server] = await Promise.all([launchChromium(), startRealServer(open, limits)]);
    tab = await Tab.open(browser, server.url, { viewport });
    await tab.setNumber("Max tokens", 12);
    await tab.setNumber("Seed", 1);
  });
  afterAll(async () => {
    // Whatever the page did, it broke nothing, and asked nobody else.
    expect(tab?.complaints).toEqual([]);
    await browser?.close();
    await server?.close();
  });

  const said = () => tab.page.locator(".said .text").allTextContents();
  const figuresOf = (index: number) => tab.answers.nth(index).locator(".figures").textContent();

  it("answers, and reads only what is new", async () => {
    await tab.say("Tell me a tale about a king.");
    expect(await figuresOf(0)).toMatch(
      /^0 cached · \d+ read · 12 written · [\d,]+ tokens\/s · first after .* · state 266 KiB$/,
    );
    await tab.say("And then?");
    expect(await said()).toEqual(["Tell me a tale about a king.", "And then?"]);
    const [, cached, read] = /^(\d+) cached · (\d+) read/.exec((await figuresOf(1))!)!;
    expect(Number(cached)).toBeGreaterThan(25);
    expect(Number(read)).toBeLessThan(20);
  });

  it("asks again, and keeps both answers as branches", async () => {
    await tab.answers.nth(1).getByRole("button", { name: "Retry" }).click();
    await tab.ended();
    await tab.page.getByText("2 of 2").waitFor();
    await tab.button("Branch before").click();
    await tab.page.getByText("1 of 2").waitFor();
    await tab.panel("States");
    expect(await tab.treeItems.allTextContents()).toEqual([
      expect.stringContaining("Tell me"),
      expect.stringContaining("And then?"),
      expect.stringContaining("And then?"),
    ]);
  });

  it("goes on from an edited message, without what followed it", async () => {
    await tab.panel("Chat");
    await tab.button("Edit").first().click();
    const editor = tab.page.locator("form.said").getByRole("textbox", { name: "Message" });
    await editor.fill("Tell me a tale about a queen.");
    await tab.page.locator("form.said").getByRole("button", { name: "Send" }).click();
    await tab.ended();
    expect(await said()).toEqual(["Tell me a tale about a queen."]);
    await tab.page.getByText("2 of 2").waitFor();
  });

  it("goes on from any state of the tree, by keyboard too", async () => {
    await tab.panel("States");
    await tab.treeItems.last().focus();
    for (const key of ["Home", "ArrowDown", "Enter"]) await tab.page.keyboard.press(key);
    await tab.panel("Chat");
    expect(await said()).toEqual(["Tell me a tale about a king.", "And then?"]);
    await tab.panel("States");
    await tab.treeItems.first().click();
    await tab.say("Who was he?");
    expect(await said()).toEqual(["Tell me a tale about a king.", "Who was he?"]);
    await tab.panel("States");
    expect(await tab.treeItems.count()).toBe(5);
  });

  it("writes several answers at once, and goes on from one of them", async () => {
    await tab.setNumber("Samples", 3);
    await tab.say("And his daughter?");
    expect(await tab.answers.count()).toBe(1 + 1 + 3);
    const texts = await tab.answers.locator(".markdown").allTextContents();
    expect(new Set(texts.slice(2)).size).toBe(3);
    await tab.answers.nth(3).getByRole("button", { name: "Continue from here" }).click();
    await tab.setNumber("Samples", 1);
    await tab.say("Why?");
    expect(await tab.answers.nth(2).locator(".markdown").textContent()).toBe(texts[3]);
  });

  it("stops, and goes on from what there is", async () => {
    await tab.setNumber("Max tokens", 1500);
    // Which the model would not end by itself.
    await tab.setSchema({ type: "string", minLength: 4000 });
    await tab.begin("A long tale, please.");
    await expect.poll(() => tab.answers.last().locator(".markdown").textContent()).toMatch(/\w+ \w+ /);
    await tab.button("Stop").click();
    await tab.ended();
    await tab.page.getByText("Stopped.").waitFor();
    await expect.poll(() => server.engine.load).toMatchObject({ slotsInUse: 0 });
    await tab.setNumber("Max tokens", 12);
    await tab.setSchema(undefined);
    await tab.say("Go on.");
    expect(await said()).toEqual(expect.arrayContaining(["A long tale, please.", "Go on."]));
    expect(await figuresOf((await tab.answers.count()) - 1)).toMatch(/^\d{2,} cached · 1?\d read/);
  });

  it("names a state: it is a session, for others too", async () => {
    await tab.panel("States");
    await tab.page.getByLabel("Name of this state").fill("the tale");
    await tab.button("Keep as a session").click();
    await tab.page
      .getByRole("alert")
      .getByText(/^session_id must be of letters/)
      .waitFor();
    await tab.page.getByLabel("Name of this state").fill("the-tale");
    await tab.button("Keep as a session").click();
    await tab.button("Download the-tale").waitFor();
    const chat = { session_id: "the-tale", messages: [{ role: "user", content: "Hi" }], max_tokens: 4 };
    expect((await post(`${server.url}/v1/chat/completions`, chat)).status).toBe(200);
    expect(await tab.page.getByRole("alert").count()).toBe(0);
  });

  it("downloads a state, and goes on from the file", async () => {
    await tab.panel("States");
    const downloading = tab.page.waitForEvent("download");
    await tab.button("Download the-tale").click();
    const download = await downloading;
    expect(download.suggestedFilename()).toBe("the-tale.session");
    const bytes = await readFile(await download.path());
    const file = (name: string, buffer: Buffer) => ({ name, mimeType: "application/octet-stream", buffer });
    const chooser = tab.page.getByLabel("File of a state");
    await chooser.setInputFiles(file("cut.session", bytes.subarray(0, 1000)));
    await tab.page.getByRole("alert").getByText(/\.$/).waitFor();
    await chooser.setInputFiles(file("<b>my tale.session", bytes));
    await tab.panel("Chat");
    await tab.page.getByText(/The state of .* has read \d+ tokens/).waitFor();
    await tab.say("And then?");
    expect(await figuresOf(0)).toMatch(/^\d{2,} cached · 1?\d read/);
    await tab.drop("dropped.session", bytes);
    await tab.page.getByText("The state of dropped").waitFor();
    await tab.panel("States");
    await tab.button("Delete b-my-tale").click();
    await tab.button("Delete b-my-tale").waitFor({ state: "detached" });
  });

  it("goes on from a session of another client, which stays as it is", async () => {
    const sessions = `${server.url}/v1/sessions`;
    await post(sessions, { session_id: "elsewhere" });
    const chat = { session_id: "elsewhere", messages: [{ role: "user", content: "Hi" }], max_tokens: 4 };
    await post(`${server.url}/v1/chat/completions`, chat);
    const before = (await (await fetch(`${sessions}/elsewhere`)).json()) as { num_tokens: number };
    await tab.panel("States");
    await tab.button("Continue from elsewhere").click();
    await tab.say("Hello again.");
    const after = await (await fetch(`${sessions}/elsewhere`)).json();
    expect(after).toMatchObject({ num_tokens: before.num_tokens });
  });

  it("rolls a session back to a checkpoint, and forks it there", async () => {
    const session = `${server.url}/v1/sessions/elsewhere`;
    const tokens = async () => ((await (await fetch(session)).json()) as { num_tokens: number }).num_tokens;
    const first = await tokens();
    const chat = { session_id: "elsewhere", messages: [{ role: "user", content: "And then?" }], max_tokens: 4 };
    await post(`${server.url}/v1/chat/completions`, chat);
    expect(await tokens()).toBeGreaterThan(first);
    await tab.panel("States");
    await tab.page.getByText("Checkpoints of elsewhere").click();
    await tab.button(`Roll back to ${first} tokens`).click();
    await tab.page.getByText(`${first} tokens (current)`).waitFor();
    expect(await tokens()).toBe(first);
    await tab.button(`Fork at ${first} tokens`).click();
    await tab.panel("Chat");
    await tab.page.getByText(`The state of elsewhere-${first}`).waitFor();
    await tab.say("Hello once more.");
    expect(await figuresOf(0)).toMatch(/^\d{2,} cached · 1?\d read/);
  });

  it("has what it had when it is loaded again", async () => {
    await tab.panel("States");
    const tree = await tab.treeItems.allTextContents();
    await tab.panel("Chat");
    const before = [await said(), await tab.answers.locator(".markdown").allTextContents()];
    await tab.page.reload();
    await expect
      .poll(async () => [await said(), await tab.answers.locator(".markdown").allTextContents()])
      .toEqual(before);
    await tab.panel("States");
    expect(await tab.treeItems.allTextContents()).toEqual(tree);
  });

  it("writes JSON that a schema describes", async () => {
    await tab.panel("Chat");
    await tab.button("New").click();
    await tab.setSchema("{");
    await tab.begin("How many?");
    await tab.page
      .getByRole("alert")
      .getByText(/^The schema must be JSON/)
      .waitFor();
    await tab.setSchema({ enum: ["one", "two"] });
    await tab.say("How many?");
    expect(await tab.answers.locator(".markdown").textContent()).toMatch(/^"(one|two)"\s*$/);
    await tab.setSchema(undefined);
  });

  it("says what the server refuses", async () => {
    await tab.setNumber("Temperature", 9);
    await tab.say("Hi");
    await tab.answers.getByText("Temperature must be at most 2; got 9.").waitFor();
    await tab.setNumber("Temperature", "");
  });

  it.each(["light", "dark"] as const)(
    "has no serious fault for those who do not see it, in %s",
    async (colorScheme) => {
      await tab.page.emulateMedia({ colorScheme });
      for (const panel of ["Chat", "States", "Settings"] as const) {
        await tab.panel(panel);
        await tab.accessibility();
      }
    },
  );
});
