/** Run by a test under a low limit of open files: what happens where no process can be started. */
import { closeSync, openSync } from "node:fs";
import { EncoderProcess } from "../../src/tokenizer/encoder-process.ts";
import { RenderProcess } from "../../src/tokenizer/render-process.ts";
import { byteLevelJson } from "../helpers/tiny-tokenizers.ts";

const source = {
  path: "tokenizer.json",
  text: JSON.stringify(byteLevelJson()),
  library: "auto",
  addedTokens: [],
} as const;
const job = { source: "hello", variables: { messages: [] }, nowMs: 0, timeoutMs: 5000, maxLength: 100 };
const tell = (what: unknown) => process.stdout.write(`${what instanceof Error ? what.message : what}\n`);

// Before there are too few: what Node looks up is remembered.
const encoder = await EncoderProcess.start(source);
encoder.kill(new Error("enough"));
const descriptors: number[] = [];
try {
  for (;;) descriptors.push(openSync("/dev/null", "r"));
} catch {
  // Now there are no more.
}
await EncoderProcess.start(source).then(tell, tell);
const renderer = new RenderProcess();
await renderer.render(job).then(tell, tell);
for (const descriptor of descriptors) closeSync(descriptor);
await renderer.render(job).then(tell, tell);
renderer.close();
