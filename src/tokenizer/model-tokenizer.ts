/** A checkpoint's tokenizer: encoding by a library, decoding by our own table. Immutable; shared by all requests. */
import { type Affixes, parseAffixes } from "./affixes.ts";
import { ContinuationEncoder } from "./continuation.ts";
import { type Encoder, type EncodingLibrary, openEncoder } from "./encoder.ts";
import { SPECIAL_ROLES, type TokenizerFiles } from "./files.ts";
import { IncrementalDecoder } from "./incremental-decoder.ts";
import { Pieces } from "./pieces.ts";
import type { TextStream, Tokenizer } from "./tokenizer.ts";

const NOTHING: ReadonlySet<number> = new Set();

export class ModelTokenizer implements Tokenizer {
  readonly specialIds: ReadonlySet<number>;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly addsBos: boolean;
  readonly endTokenIds: ReadonlySet<number>;
  readonly chatTemplate: string | undefined;
  readonly specialTokens: Readonly<Record<string, string>>;
  readonly #encoder: Encoder;
  readonly #continuation: ContinuationEncoder;
  readonly #pieces: Pieces;
  readonly #affixes: Affixes;

  /** @throws `invalid_checkpoint` */
  constructor(files: TokenizerFiles, library: EncodingLibrary) {
    this.#pieces = new Pieces(files.json);
    this.specialTokens = files.specialTokens;
    this.chatTemplate = files.chatTemplate;

    const idsOfRoles = findIds(this.#pieces, files.specialTokens);
    this.bosTokenId = idsOfRoles.get("bos_token");
    this.eosTokenId = idsOfRoles.get("eos_token");
    this.#affixes = parseAffixes(files, { bos: this.bosTokenId, eos: this.eosTokenId });
    this.addsBos = this.bosTokenId !== undefined && this.#affixes.prefix.includes(this.bosTokenId);
    const added = files.json.added_tokens.filter((token) => token.special === true).map((token) => token.id);
    this.specialIds = new Set([...added, ...idsOfRoles.values()]);
    this.endTokenIds = new Set([...(this.eosTokenId === undefined ? [] : [this.eosTokenId]), ...files.endTokenIds]);
    // Last: of what is wrong with a file, what we see ourselves is said more clearly.
    this.#encoder = openEncoder(files, library);
    this.#continuation = new ContinuationEncoder(this.#encoder, this.#pieces);
  }

  /** Which library encodes: `native`, or `script` where there is no prebuilt binary. */
  get library(): Encoder["library"] {
    return this.#encoder.library;
  }

  get vocabSize(): number {
    return this.#pieces.size;
  }

  async encode(text: string, { addSpecialTokens }: { readonly addSpecialTokens: boolean }): Promise<number[]> {
    const ids = await this.#encoder.encode(text);
    const { prefix, suffix } = this.#affixes;
    if (!addSpecialTokens || prefix.length + suffix.length === 0) return ids;
    return prefix.concat(ids, suffix);
  }

  encodeContinuation(text: string): Promise<number[] | undefined> {
    return this.#continuation.encode(text);
  }

  decode(ids: readonly number[], options: { readonly skipSpecialTokens: boolean }): string {
    const stream = this.stream(options);
    let text = "";
    for (const id of ids) text += stream.push(id);
    return text + stream.flush();
  }

  stream(options: { readonly skipSpecialTokens: boolean; readonly contextIds?: readonly number[] }): TextStream {
    return new IncrementalDecoder(this.#pieces, {
      skippedIds: options.skipSpecialTokens ? this.specialIds : NOTHING,
      ...(options.contextIds && { contextIds: options.contextIds }),
    });
  }

  idToToken(id: number): string | undefined {
    return this.#pieces.spelling(id);
  }

  tokenText(id: number): string {
    return this.#pieces.text(id);
  }

  tokenBytes(id: number): Uint8Array {
    return this.#pieces.bytes(id);
  }
}

function findIds(pieces: Pieces, specialTokens: Readonly<Record<string, string>>): Map<string, number> {
  const wanted = new Set(Object.values(specialTokens));
  const ids = new Map<string, number>();
  for (let id = 0; id < pieces.size; id++) {
    const spelling = pieces.spelling(id);
    if (spelling === undefined || !wanted.has(spelling)) continue;
    // One text may have several roles: many models use one token for BOS, EOS and padding.
    for (const role of SPECIAL_ROLES) if (specialTokens[role] === spelling) ids.set(role, id);
  }
  return ids;
}
