/**
 * A checkpoint's tokenizer: encoding by a library or a trie, decoding by our own table. Immutable;
 * shared by all requests.
 */

import { ChunkedEncoder } from "./chunked-encoder.ts";
import { Encoder, type LibraryChoice } from "./encoder.ts";
import type { EncodingLibrary } from "./encoder-process.ts";
import { SPECIAL_ROLES, type TextFiles, type TokenizerFiles } from "./files.ts";
import { IncrementalDecoder } from "./incremental-decoder.ts";
import { parseSurroundingTokens, type SurroundingTokens } from "./surrounding-tokens.ts";
import { findTextCuts } from "./text-cuts.ts";
import type { DefaultChat, EncodeLimits, EncodeOptions, TextStream, Tokenizer } from "./tokenizer.ts";
import { VocabTable } from "./vocab-table.ts";

/** What differs between kinds of tokenizers. */
export interface TokenizerParts {
  readonly vocab: VocabTable;
  readonly encoder: TextEncoder;
  readonly surroundingTokens: SurroundingTokens;
  /** Texts and ids of the special tokens, by their roles. */
  readonly specialTokens: Readonly<Record<string, string>>;
  readonly roleIds: ReadonlyMap<string, number>;
  readonly specialIds: Iterable<number>;
  readonly defaultChat?: DefaultChat | undefined;
  readonly maxPadding?: number;
  /** Which one encodes; none does for a vocabulary that needs only a trie. */
  readonly library?: EncodingLibrary;
}

interface TextEncoder {
  encode(text: string, limits?: EncodeLimits): Promise<number[]>;
  encodeContinuation(text: string, limits?: EncodeLimits): Promise<number[] | undefined>;
}

const NOTHING: ReadonlySet<number> = new Set();

export class ModelTokenizer implements Tokenizer {
  readonly maxPadding: number | undefined;
  readonly className: string | undefined;
  readonly specialIds: ReadonlySet<number>;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly addsBos: boolean;
  readonly endTokenIds: ReadonlySet<number>;
  readonly chatTemplate: string | undefined;
  readonly defaultChat: DefaultChat | undefined;
  readonly specialTokens: Readonly<Record<string, string>>;
  /** The library that encodes: `native`, or `script` without a prebuilt binary. */
  readonly library: EncodingLibrary | undefined;
  readonly #encoder: TextEncoder;
  readonly #vocab: VocabTable;
  readonly #surroundingTokens: SurroundingTokens;

  constructor(files: TextFiles, parts: TokenizerParts) {
    const { vocab, encoder, surroundingTokens, roleIds, specialIds } = parts;
    this.library = parts.library;
    this.#encoder = encoder;
    this.#vocab = vocab;
    this.#surroundingTokens = surroundingTokens;
    this.specialTokens = parts.specialTokens;
    this.className = files.className;
    this.chatTemplate = files.chatTemplate;
    this.defaultChat = parts.defaultChat;
    this.maxPadding = parts.maxPadding;
    this.bosTokenId = roleIds.get("bos_token");
    this.eosTokenId = roleIds.get("eos_token");
    this.addsBos = this.bosTokenId !== undefined && surroundingTokens.prefix.includes(this.bosTokenId);
    this.specialIds = new Set([...specialIds, ...roleIds.values()]);
    this.endTokenIds = new Set([...(this.eosTokenId === undefined ? [] : [this.eosTokenId]), ...files.endTokenIds]);
  }

  /** By tokenizer.json. @throws `invalid_checkpoint` */
  static async open(files: TokenizerFiles, choice: LibraryChoice): Promise<ModelTokenizer> {
    const { json, specialTokens } = files;
    const vocab = new VocabTable(json);
    const roleIds = findIds(vocab, specialTokens);
    const surroundingTokens = parseSurroundingTokens(files, {
      bos: roleIds.get("bos_token"),
      eos: roleIds.get("eos_token"),
    });
    const cuts = findTextCuts(json);
    const specialIds = json.added_tokens.filter((token) => token.special === true).map((token) => token.id);
    // Last, since our own checks explain a file's faults more clearly.
    const library = await Encoder.open(files, choice);
    const encoder = new ChunkedEncoder(library, vocab, cuts);
    const texts = { specialTokens, roleIds, specialIds, surroundingTokens };
    return new ModelTokenizer(files, { vocab, encoder, library: library.library, ...texts });
  }

  get vocabSize(): number {
    return this.#vocab.size;
  }

  async encode(text: string, { addSpecialTokens, ...limits }: EncodeOptions): Promise<number[]> {
    const ids = await this.#encoder.encode(text, limits);
    const { prefix, suffix } = this.#surroundingTokens;
    if (!addSpecialTokens || prefix.length + suffix.length === 0) return ids;
    return prefix.concat(ids, suffix);
  }

  encodeContinuation(text: string, limits?: EncodeLimits): Promise<number[] | undefined> {
    return this.#encoder.encodeContinuation(text, limits);
  }

  decode(ids: readonly number[], options: { readonly skipSpecialTokens: boolean }): string {
    const stream = this.stream(options);
    let text = "";
    for (const id of ids) text += stream.push(id);
    return text + stream.flush();
  }

  stream(options: { readonly skipSpecialTokens: boolean; readonly contextIds?: readonly number[] }): TextStream {
    return new IncrementalDecoder(this.#vocab, {
      skippedIds: options.skipSpecialTokens ? this.specialIds : NOTHING,
      ...(options.contextIds && { contextIds: options.contextIds }),
    });
  }

  idToToken(id: number): string | undefined {
    return this.#vocab.spelling(id);
  }

  tokenText(id: number): string {
    return this.#vocab.text(id);
  }

  tokenBytes(id: number): Uint8Array {
    return this.#vocab.bytes(id);
  }
}

function findIds(vocab: VocabTable, specialTokens: Readonly<Record<string, string>>): Map<string, number> {
  const wanted = new Set(Object.values(specialTokens));
  const ids = new Map<string, number>();
  for (let id = 0; id < vocab.size; id++) {
    const spelling = vocab.spelling(id);
    if (spelling === undefined || !wanted.has(spelling)) continue;
    // One text may have several roles: many models use one token for BOS, EOS and padding.
    for (const role of SPECIAL_ROLES) if (specialTokens[role] === spelling) ids.set(role, id);
  }
  return ids;
}
