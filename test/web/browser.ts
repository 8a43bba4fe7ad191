/** A browser on the page, and what a person does there. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Browser, BrowserContextOptions, Locator, Page } from "playwright-core";
import { expect } from "vitest";

export const SIZES = [
  { width: 1280, height: 800 },
  { width: 390, height: 844 },
] as const;

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** The page of a new tab. Whatever it complains of fails the test. */
export class Tab implements AsyncDisposable {
  readonly page: Page;
  readonly complaints: string[] = [];
  readonly #isPhone: boolean;

  private constructor(page: Page, isPhone: boolean) {
    this.page = page;
    this.#isPhone = isPhone;
    // What breaks the page's policy is told on the console.
    page.on("console", (message) => {
      const isRefusal = /Failed to load resource: the server responded/.test(message.text());
      if (message.type() === "error" && !isRefusal) this.complaints.push(message.text());
    });
    page.on("pageerror", (error) => this.complaints.push(String(error)));
    page.on("request", (request) => {
      const { protocol, host } = new URL(request.url());
      if (/^https?:$/.test(protocol) && host !== new URL(page.url()).host && page.url() !== "about:blank") {
        this.complaints.push(`a request to ${request.url()}`);
      }
    });
  }

  static async open(browser: Browser, url: string, options: BrowserContextOptions = {}): Promise<Tab> {
    const viewport = options.viewport ?? SIZES[0];
    const context = await browser.newContext({ viewport, ...options });
    context.setDefaultTimeout(20_000);
    const tab = new Tab(await context.newPage(), viewport.width < 960);
    await tab.page.goto(url);
    return tab;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.page.context().close();
  }

  /** Opens a panel, where they are seen one at a time. */
  async panel(name: "States" | "Chat" | "Settings"): Promise<void> {
    if (this.#isPhone)
      await this.page.getByRole("navigation", { name: "Panels" }).getByRole("button", { name }).click();
  }

  get answers(): Locator {
    return this.page.getByRole("article");
  }

  get treeItems(): Locator {
    return this.page.getByRole("treeitem");
  }

  button(name: string): Locator {
    return this.page.getByRole("button", { name, exact: true });
  }

  /** Sends a message and waits for the end of all answers. */
  async say(text: string): Promise<void> {
    await this.begin(text);
    await this.ended();
  }

  async begin(text: string): Promise<void> {
    await this.panel("Chat");
    await this.page.getByRole("textbox", { name: "Message", exact: true }).fill(text);
    await this.button("Send").click();
  }

  async ended(): Promise<void> {
    await this.button("Send").waitFor();
  }

  async setNumber(label: string, value: number | ""): Promise<void> {
    await this.panel("Settings");
    await this.page.getByLabel(label, { exact: true }).fill(String(value));
  }

  /** Of answers. @param schema text as it is, all else as JSON */
  async setSchema(schema: object | string | undefined): Promise<void> {
    await this.panel("Settings");
    const field = this.page.getByLabel("JSON schema of the answer");
    if (!(await field.isVisible())) await this.page.getByText("Tools and JSON").click();
    await field.fill(typeof schema === "object" ? JSON.stringify(schema) : (schema ?? ""));
  }

  async drop(name: string, bytes: Buffer): Promise<void> {
    const files = await this.page.evaluateHandle(
      ([fileName, base64]) => {
        const transfer = new DataTransfer();
        const content = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
        transfer.items.add(new File([content], fileName));
        return transfer;
      },
      [name, bytes.toString("base64")] as const,
    );
    await this.page.dispatchEvent("main", "drop", { dataTransfer: files });
  }

  /** What axe-core finds that is serious or worse. */
  async accessibility(): Promise<void> {
    // Not as a script of the page, which its policy would refuse.
    await this.page.evaluate(AXE);
    const found = await this.page.evaluate(async () => {
      const { axe } = globalThis as unknown as { axe: { run(): Promise<{ violations: Violation[] }> } };
      const { violations } = await axe.run();
      return violations.map(({ id, impact, nodes }) => ({ id, impact, targets: nodes.map(({ html }) => html) }));
    });
    expect(found.filter(({ impact }) => impact === "serious" || impact === "critical")).toEqual([]);
  }
}

interface Violation {
  readonly id: string;
  readonly impact: string;
  readonly nodes: readonly { readonly html: string }[];
}
