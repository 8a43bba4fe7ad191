/**
 * Debian's Chromium for tests of the page. CI installs it; elsewhere tests that need it are skipped
 * where it is missing.
 */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const EXECUTABLE = process.env.CHROMIUM || "/usr/bin/chromium";

export const hasChromium = existsSync(EXECUTABLE);
if (!hasChromium) {
  const message = `${EXECUTABLE} is not there: the page is not tested in a browser (apt-get install chromium)`;
  if (process.env.CI) throw new Error(message);
  console.warn(`SKIPPED: ${message}`);
}

export function launchChromium(): Promise<Browser> {
  // Root, as in containers, cannot have Chromium's own sandbox.
  return chromium.launch({ executablePath: EXECUTABLE, args: ["--no-sandbox", "--disable-gpu"] });
}
