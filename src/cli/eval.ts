/**
 * `densemamba eval`: perplexity and bits per byte of a text, and what a precision costs against
 * another. Every token counts, also a document's first one; a document is read from end to end in
 * one state.
 */
import { readFile } from "node:fs/promises";
import { checkVocabulary, requireTokenizer } from "../app/compose.ts";
import { type EvalDocument, type Evaluation, evaluate } from "../app/evaluation.ts";
import { loadModel } from "../app/load-model.ts";
import type { Config } from "../config/schema.ts";
import { DenseMambaError } from "../errors.ts";
import type { Manifest, Precision } from "../model/artifact.ts";
import type { ModelRunner } from "../runtime/runner.ts";
import { inPrecision, NumericFault } from "../sampling/rows.ts";
import type { Tokenizer } from "../tokenizer/tokenizer.ts";
import { CLEAR_REST, readAll, showProgress, type Terminal, write } from "./terminal.ts";

export interface EvalOptions {
  /** A file, or `-` for standard input. Lines `<|endoftext|>` separate documents. */
  readonly text: string;
  /** The precision to compare with, its states in what is usual for it. */
  readonly against?: Precision | undefined;
}

/**
 * A table on stderr, one JSON object on stdout.
 * @throws `invalid_value` for a text that cannot be read or is empty, and what loading throws
 */
export async function evalText(config: Config, options: EvalOptions, terminal: Terminal): Promise<void> {
  const texts = splitDocuments(await readText(options.text, terminal));
  const tokenizer = await requireTokenizer(config);
  const load = { numSlots: 1, onProgress: showProgress(terminal), note: () => undefined };
  const { against } = options;
  const runners: ModelRunner[] = [];
  const open = async (wanted: Config) => {
    const runner = await (await loadModel(wanted, load)).openRunner();
    runners.push(runner);
    return runner;
  };
  try {
    const runner = await open(config);
    const { manifest } = runner;
    checkVocabulary(tokenizer, manifest);
    const documents = await Promise.all(texts.map((text) => toDocument(text, tokenizer, manifest)));
    const reference = against && (await open({ ...config, precision: against, statePrecision: "auto" }));
    const total = documents.reduce((sum, { tokenIds }) => sum + tokenIds.length - 1, 0);
    const evaluation = await evaluate({
      runner,
      reference,
      documents,
      chunk: config.prefillChunk,
      onProgress: countTokens(terminal, total),
    });
    await report(evaluation, { manifest, against, numDocuments: documents.length }, terminal);
  } finally {
    await Promise.all(runners.map((runner) => runner.close()));
  }
}

async function readText(file: string, terminal: Terminal): Promise<string> {
  if (file === "-") return readAll(terminal.stdin);
  try {
    return await readFile(file, "utf8");
  } catch (cause) {
    throw new DenseMambaError("invalid_value", `cannot read --text ${file}: ${(cause as Error).message}`, { cause });
  }
}

/** Drops the line breaks around separators, and empty documents. */
function splitDocuments(text: string): string[] {
  const documents = text
    .split(/^<\|endoftext\|>\r?$/m)
    .map((document) => document.replace(/^\r?\n/, "").replace(/\r?\n$/, ""))
    .filter((document) => document !== "");
  if (documents.length > 0) return documents;
  throw new DenseMambaError("invalid_value", `--text must hold at least one document, ${text.length} characters given`);
}

async function toDocument(text: string, tokenizer: Tokenizer, manifest: Manifest): Promise<EvalDocument> {
  // What texts followed in training: BOS, or the end of the text before.
  const first = tokenizer.bosTokenId ?? manifest.bosTokenId ?? tokenizer.eosTokenId ?? manifest.eosTokenIds[0];
  if (first === undefined) {
    throw new DenseMambaError(
      "unsupported_value",
      `${manifest.name} has neither a BOS nor an EOS token, so a text's first token cannot be scored`,
    );
  }
  const tokenIds = await tokenizer.encode(text, { addSpecialTokens: false });
  return { tokenIds: [first, ...tokenIds], numBytes: Buffer.byteLength(text) };
}

function countTokens({ stderr }: Terminal, total: number): (numTokens: number) => void {
  if (!stderr.isTTY) return () => undefined;
  return (numTokens) => {
    stderr.write(`\r${numTokens} of ${total} tokens${CLEAR_REST}${numTokens === total ? "\n" : ""}`);
  };
}

interface Subject {
  readonly manifest: Manifest;
  readonly against: Precision | undefined;
  readonly numDocuments: number;
}

async function report(evaluation: Evaluation, subject: Subject, terminal: Terminal): Promise<void> {
  const { manifest, against, numDocuments } = subject;
  const { numTokens, numBytes, against: comparison } = evaluation;
  const scores = (loss: number) => ({
    perplexity: Math.exp(loss / numTokens),
    bits_per_byte: loss / Math.LN2 / numBytes,
  });
  const own = scores(evaluation.loss);
  const json = {
    model: manifest.name,
    precision: manifest.precision,
    documents: numDocuments,
    tokens: numTokens,
    bytes: numBytes,
    ...own,
    against: comparison && {
      precision: against,
      ...scores(comparison.loss),
      mean_kl: comparison.divergence / numTokens,
      top1_agreement: comparison.numAgreeing / numTokens,
    },
  };
  const numbers = [own, json.against ?? {}].flatMap((part) => Object.values(part).filter((x) => typeof x === "number"));
  if (!numbers.every(Number.isFinite)) {
    const error = new NumericFault(
      `the perplexity is ${own.perplexity}: ${evaluation.loss} nats in ${numTokens} tokens`,
    );
    throw inPrecision(error, manifest.precision);
  }
  const rows: [string, string | number][] = [
    ["model", `${manifest.name}, ${manifest.precision}`],
    ["text", `${numTokens} tokens, ${numBytes} bytes, ${numDocuments} documents`],
    ["perplexity", own.perplexity.toFixed(4)],
    ["bits per byte", own.bits_per_byte.toFixed(4)],
  ];
  if (json.against !== undefined) {
    const change = (own.perplexity / json.against.perplexity - 1) * 100;
    rows.push(
      ["against", `${against}: perplexity ${json.against.perplexity.toFixed(4)}`],
      ["change", `${change >= 0 ? "+" : ""}${change.toFixed(3)}% of perplexity`],
      ["mean KL", `${json.against.mean_kl.toExponential(2)} nats a token`],
      ["top-1", `${(json.against.top1_agreement * 100).toFixed(2)}% of tokens agree`],
    );
  }
  await write(terminal.stderr, rows.map(([key, value]) => `${key.padEnd(14)}${value}\n`).join(""));
  await write(terminal.stdout, `${JSON.stringify(json)}\n`);
}
