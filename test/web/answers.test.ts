/**
 * What the page makes of answers of all kinds, over a server whose model says what it is told to.
 * Needs a build.
 */
import type { Browser, WebSocketRoute } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hasChromium, launchChromium } from "../helpers/chromium.ts";
import { gate, pauseAt } from "../helpers/gate.ts";
import { startTestServer } from "../helpers/listening-server.ts";
import { startScriptedServer } from "../helpers/scripted-server.ts";
import { Tab } from "./browser.ts";

const THINKING = `{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|><think>{# </think> #}`;

describe.runIf(hasChromium)("the page", () => {
  let browser: Browser;

  beforeAll(async () => {
    browser = await launchChromium();
  });
  afterAll(() => browser?.close());

  it("shows Markdown, and HTML as the text that it is", async () => {
    await using server = await startScriptedServer();
    await using tab = await Tab.open(browser, server.url);
    const attack = [
      `# Title`,
      `*soft* **hard** \`code\` <b>bold</b>`,
      `<img src=x onerror="document.title='hacked'"><script>document.title='hacked'</script>`,
      `[bad](javascript:document.title='hacked') [good](https://example.org/?a=1&b=2 "t")`,
      `![picture](https://example.org/track.png)`,
      `- one\n- two`,
      `| a | b |\n| - | - |\n| 1 | <i>2</i> |`,
      `<svg/onload=document.title='hacked'>`,
      `<a href="javascript:document.title='hacked'">link</a> <style>*{display:none}</style>`,
      `- [x] done`,
    ].join("\n\n");
    await server.says(attack);
    await tab.say("<script>document.title='hacked'</script> *Hi*");
    const answer = tab.answers.locator(".markdown");
    expect(await answer.locator("img, script, svg, style, b, i, [onerror], [href^=javascript]").count()).toBe(0);
    const html = await answer.innerHTML();
    for (const part of [
      "<h3>Title</h3>",
      "<em>soft</em>",
      "<strong>hard</strong>",
      "<code>code</code>",
      "<td>1</td>",
    ]) {
      expect(html).toContain(part);
    }
    expect(await answer.textContent()).toContain("<script>document.title='hacked'</script>");
    const links = await answer.getByRole("link").evaluateAll((all) => all.map((link) => link.outerHTML));
    expect(links).toEqual([
      '<a href="https://example.org/?a=1&amp;b=2" title="t" target="_blank" rel="noopener noreferrer">good</a>',
      '<a href="https://example.org/track.png" target="_blank" rel="noopener noreferrer">picture</a>',
    ]);
    expect(await tab.page.locator(".said .text").textContent()).toBe("<script>document.title='hacked'</script> *Hi*");
    expect(await tab.page.title()).toBe("densemamba");
    expect(tab.complaints).toEqual([]);
  });

  it("shows the same text whether it comes at once or piece by piece", async () => {
    const text = Array.from(
      { length: 12 },
      (_, n) => `## Part ${n}\n\nSome *text*\nover lines.\n\n1. a\n\n   b\n2. c`,
    ).join("\n\n");
    await using server = await startTestServer();
    await using tab = await Tab.open(browser, server.url);
    server.generator.script = { reply: text.match(/[\s\S]{1,3}/g)! };
    await tab.say("Hi");
    const pieces = await tab.answers.locator(".markdown").innerHTML();
    await tab.page.reload();
    await tab.answers.locator(".markdown").waitFor();
    expect(await tab.answers.locator(".markdown").innerHTML()).toBe(pieces);
    expect(pieces.match(/<h4>/g)).toHaveLength(12);
  });

  it("folds thinking away", async () => {
    await using server = await startScriptedServer(THINKING);
    await using tab = await Tab.open(browser, server.url);
    await server.says("I wonder.</think>It is so.");
    await tab.say("Is it?");
    expect((await tab.answers.locator(".markdown").textContent())!.trim()).toBe("It is so.");
    expect(await tab.page.getByText("I wonder.").isVisible()).toBe(false);
    await tab.page.getByText("Thinking").click();
    await tab.page.getByText("I wonder.").waitFor();
  });

  it("shows calls of tools, and sends their results", async () => {
    await using server = await startScriptedServer();
    await using tab = await Tab.open(browser, server.url);
    await tab.panel("Settings");
    await tab.page.getByText("Tools and JSON").click();
    const tool = { type: "function", function: { name: "get_weather", parameters: { type: "object" } } };
    await tab.page.getByLabel("Tools, as a JSON list").fill(JSON.stringify([tool]));
    await server.says('{"name": "get_weather", "arguments": {"city": "<b>Paris</b>"}}', "It is warm.");
    await tab.page.getByLabel("System prompt").fill("You are a thermometer.");
    await tab.say("Is it warm in Paris?");
    expect(server.lastPrompt()).toContain("You are a thermometer.");
    expect(await tab.answers.locator(".call").textContent()).toBe('Calls get_weather{"city": "<b>Paris</b>"}');
    await tab.page.getByLabel("What get_weather returns").fill("24 degrees");
    await tab.button("Send results").click();
    await tab.answers.getByText("It is warm.").waitFor();
    expect(server.lastPrompt()).toContain("24 degrees");
    expect(tab.complaints).toEqual([]);
  });

  it("misses nothing of an answer whose connection drops", async () => {
    await using server = await startTestServer();
    await using tab = await Tab.open(browser, "about:blank");
    const sockets: WebSocketRoute[] = [];
    await tab.page.routeWebSocket(/\/v1\/responses$/, (socket) => {
      socket.connectToServer();
      sockets.push(socket);
    });
    await tab.page.goto(server.url);
    const reply = Array.from({ length: 30 }, (_, index) => ` word${index}`);
    const held = gate();
    server.generator.script = { reply, pace: pauseAt(10, held) };
    await tab.begin("Hi");
    await tab.answers.getByText("word9").waitFor();
    await sockets[0]!.close();
    await expect.poll(() => sockets.length).toBe(2);
    held.release();
    await tab.ended();
    expect((await tab.answers.locator(".markdown").textContent())!.trim()).toBe(reply.join("").trim());
    expect(server.generator.numAborted).toBe(0);
  });

  it("takes up an answer that was running when it was loaded again", async () => {
    await using server = await startTestServer();
    await using tab = await Tab.open(browser, server.url);
    const held = gate();
    server.generator.script = { reply: ["a", "b", "c", "d"], pace: pauseAt(2, held) };
    await tab.begin("Hi");
    await tab.answers.getByText("ab").waitFor();
    await tab.page.reload();
    await tab.answers.getByText("ab").waitFor();
    held.release();
    await tab.answers.getByText("abcd").waitFor();
    await tab.ended();
  });

  it("may be open twice: both go on from one session, and neither sees the other's turns", async () => {
    await using server = await startScriptedServer();
    await server.says("It is so.");
    await server.post("/v1/sessions", { session_id: "tale" });
    await server.post("/v1/completions", { session_id: "tale", prompt: "a", max_tokens: 2 });
    await using one = await Tab.open(browser, server.url);
    await using two = await Tab.open(browser, server.url);
    for (const tab of [one, two]) await tab.button("Continue from tale").click();
    await Promise.all([one.say("One."), two.say("Two.")]);
    for (const [tab, text] of [
      [one, "One."],
      [two, "Two."],
    ] as const) {
      expect(await tab.page.locator(".said .text").allTextContents()).toEqual([text]);
      expect(await tab.answers.locator(".error").count()).toBe(0);
    }
  });

  it("asks for the key of a server that has one, and keeps it for the tab", async () => {
    const key = "s3cret/+(key)%";
    await using server = await startTestServer({ apiKeys: [key] });
    await using tab = await Tab.open(browser, server.url);
    const dialog = tab.page.getByRole("dialog", { name: "This server needs an API key" });
    await dialog.getByLabel("API key").fill("wrong");
    await tab.accessibility();
    await dialog.getByRole("button", { name: "Use this key" }).click();
    await dialog.getByText("The key is not one of this server's.").waitFor();
    await dialog.getByLabel("API key").fill(key);
    await dialog.getByRole("button", { name: "Use this key" }).click();
    await dialog.waitFor({ state: "detached" });
    await tab.say("Hi");
    await tab.page.reload();
    await tab.answers.waitFor();
    await tab.say("Hi again");
    expect(await tab.answers.count()).toBe(2);
    await using other = await Tab.open(browser, server.url);
    await other.page.getByRole("dialog").waitFor();
  });

  it("says that the server starts, recovers or is gone", async () => {
    await using server = await startTestServer();
    server.engine.status = { state: "starting" };
    await using tab = await Tab.open(browser, server.url);
    const status = tab.page.getByRole("banner").getByRole("status");
    await status.getByText("Starting").waitFor();
    server.engine.status = { state: "recovering", error: "a fault" };
    await status.getByText("Recovering from a fault").waitFor();
    server.engine.status = { state: "ready", runner: "fake" };
    await status.getByText("Ready").waitFor();
    await tab.say("Hi");
    server.deps.stopping.abort();
    await status.getByText("Stopping").waitFor();
    await server.listener.close(0);
    await status.getByText("Not reachable").waitFor();
  });
});
