/**
 * A machine for the part of Python's pickle language that plain data needs. It executes nothing:
 * what a pickle may name and call is decided by its host, and an instruction outside the table
 * below is refused. Knows nothing of torch.
 *
 * Python → here: dict → Map, list and tuple → array, str → string, int → number, and whatever the
 * host returns.
 */
import { invalidCheckpoint } from "./weights.ts";

/** All three throw what they do not accept. */
export interface PickleHost {
  /** For `module.name`. What it returns may be called, put into data, or handed back to `call`. */
  global(name: string): unknown;
  call(callable: unknown, args: readonly unknown[]): unknown;
  /** Data outside the pickle, by an id that stands in it. */
  persistent(id: unknown): unknown;
}

/** The highest protocol; torch writes 2. */
const MAX_PROTOCOL = 5;

/** Instructions that make or call things. Named, for they are what an attack would use. */
const REFUSED: Readonly<Record<number, string>> = {
  [code("i")]: "INST",
  [code("o")]: "OBJ",
  [code("P")]: "PERSID",
  129: "NEWOBJ",
  130: "EXT1",
  131: "EXT2",
  132: "EXT4",
  146: "NEWOBJ_EX",
};

/** @param what names the pickle in messages. @throws `invalid_checkpoint` */
export function readPickle(bytes: Buffer, host: PickleHost, what: string): unknown {
  return new PickleMachine(bytes, host, what).run();
}

class PickleMachine {
  readonly #bytes: Buffer;
  readonly #host: PickleHost;
  readonly #what: string;
  #offset = 0;
  #stack: unknown[] = [];
  /** The stacks below each open mark. */
  readonly #below: unknown[][] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(bytes: Buffer, host: PickleHost, what: string) {
    this.#bytes = bytes;
    this.#host = host;
    this.#what = what;
  }

  run(): unknown {
    for (;;) {
      const at = this.#offset;
      const instruction = this.#take(1)[0]!;
      if (instruction === code(".")) return this.#pop();
      if (!this.#step(instruction)) {
        const name = REFUSED[instruction] ?? `0x${instruction.toString(16).padStart(2, "0")}`;
        throw this.#fail(`instruction ${name} at byte ${at} is not allowed in weights`);
      }
    }
  }

  /** @returns false for an instruction that is not in the table. */
  #step(instruction: number): boolean {
    switch (instruction) {
      case 128: // PROTO
        this.#checkProtocol(this.#take(1)[0]!);
        break;
      case 149: // FRAME: says how much to read ahead
        this.#take(8);
        break;
      case code("("): // MARK
        this.#below.push(this.#stack);
        this.#stack = [];
        break;
      case code("0"): // POP
        this.#pop();
        break;
      case code("2"): // DUP
        this.#push(this.#top());
        break;
      case code("N"): // NONE
        this.#push(null);
        break;
      case 136: // NEWTRUE
        this.#push(true);
        break;
      case 137: // NEWFALSE
        this.#push(false);
        break;
      case code("K"): // BININT1
        this.#push(this.#take(1)[0]!);
        break;
      case code("M"): // BININT2
        this.#push(this.#take(2).readUInt16LE());
        break;
      case code("J"): // BININT
        this.#push(this.#take(4).readInt32LE());
        break;
      case 138: // LONG1
        this.#push(this.#long(this.#take(this.#take(1)[0]!)));
        break;
      case code("G"): // BINFLOAT
        this.#push(this.#take(8).readDoubleBE());
        break;
      case code("X"): // BINUNICODE
      case code("T"): // BINSTRING
        this.#push(this.#take(this.#take(4).readUInt32LE()).toString("utf8"));
        break;
      case 140: // SHORT_BINUNICODE
      case code("U"): // SHORT_BINSTRING
        this.#push(this.#take(this.#take(1)[0]!).toString("utf8"));
        break;
      case code("]"): // EMPTY_LIST
      case code(")"): // EMPTY_TUPLE
        this.#push([]);
        break;
      case code("}"): // EMPTY_DICT
        this.#push(new Map());
        break;
      case code("t"): // TUPLE
        this.#push(this.#popToMark());
        break;
      case 133: // TUPLE1
      case 134: // TUPLE2
      case 135: // TUPLE3
        this.#push(this.#popMany(instruction - 132));
        break;
      case code("a"): // APPEND
        this.#extend(this.#popMany(1));
        break;
      case code("e"): // APPENDS
        this.#extend(this.#popToMark());
        break;
      case code("s"): // SETITEM
        this.#setItems(this.#popMany(2));
        break;
      case code("u"): // SETITEMS
        this.#setItems(this.#popToMark());
        break;
      case code("q"): // BINPUT
        this.#memo.set(this.#take(1)[0]!, this.#top());
        break;
      case code("r"): // LONG_BINPUT
        this.#memo.set(this.#take(4).readUInt32LE(), this.#top());
        break;
      case 148: // MEMOIZE
        this.#memo.set(this.#memo.size, this.#top());
        break;
      case code("h"): // BINGET
        this.#push(this.#recall(this.#take(1)[0]!));
        break;
      case code("j"): // LONG_BINGET
        this.#push(this.#recall(this.#take(4).readUInt32LE()));
        break;
      case code("c"): // GLOBAL
        this.#push(this.#host.global(`${this.#line()}.${this.#line()}`));
        break;
      case 147: // STACK_GLOBAL
        this.#push(this.#host.global(this.#popMany(2).map(String).join(".")));
        break;
      case code("R"): // REDUCE
        this.#reduce();
        break;
      case code("b"): // BUILD
        this.#build();
        break;
      case code("Q"): // BINPERSID
        this.#push(this.#host.persistent(this.#pop()));
        break;
      default:
        return false;
    }
    return true;
  }

  #checkProtocol(protocol: number): void {
    if (protocol > MAX_PROTOCOL) throw this.#fail(`protocol ${protocol} is above ${MAX_PROTOCOL}`);
  }

  #reduce(): void {
    const [callable, args] = this.#popMany(2);
    if (!Array.isArray(args)) throw this.#fail("a call has no list of arguments");
    this.#push(this.#host.call(callable, args));
  }

  /**
   * Attributes of a dict are notes of torch's that weights do not need. Nothing else may have any.
   */
  #build(): void {
    this.#pop();
    if (!(this.#top() instanceof Map)) throw this.#fail("it sets attributes of something that is not a dict");
  }

  #extend(items: readonly unknown[]): void {
    const list = this.#top();
    if (!Array.isArray(list)) throw this.#fail("it appends to something that is not a list");
    for (const item of items) list.push(item);
  }

  #setItems(items: readonly unknown[]): void {
    const dict = this.#top();
    if (!(dict instanceof Map)) throw this.#fail("it sets items of something that is not a dict");
    if (items.length % 2 !== 0) throw this.#fail("it sets a key without a value");
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i];
      if (typeof key === "string" && dict.has(key)) throw this.#fail(`it lists ${key} twice`);
      dict.set(key, items[i + 1]);
    }
  }

  /** Little-endian two's complement. */
  #long(bytes: Buffer): number {
    let value = 0n;
    for (const [i, byte] of bytes.entries()) value |= BigInt(byte) << BigInt(8 * i);
    const number = Number(BigInt.asIntN(8 * Math.max(1, bytes.length), value));
    if (!Number.isSafeInteger(number)) throw this.#fail(`a number of ${bytes.length} bytes is too large`);
    return number;
  }

  #line(): string {
    const end = this.#bytes.indexOf(10, this.#offset);
    if (end < 0) throw this.#fail("it ends inside a name");
    const line = this.#take(end - this.#offset).toString("utf8");
    this.#offset++;
    return line;
  }

  #take(length: number): Buffer {
    const end = this.#offset + length;
    if (end > this.#bytes.length) throw this.#fail(`it ends at byte ${this.#bytes.length}, ${end} needed`);
    const bytes = this.#bytes.subarray(this.#offset, end);
    this.#offset = end;
    return bytes;
  }

  #recall(index: number): unknown {
    if (!this.#memo.has(index)) throw this.#fail(`it recalls ${index}, which it has not remembered`);
    return this.#memo.get(index);
  }

  #push(value: unknown): void {
    this.#stack.push(value);
  }

  #pop(): unknown {
    return this.#popMany(1)[0];
  }

  #top(): unknown {
    if (this.#stack.length === 0) throw this.#fail("its stack is empty");
    return this.#stack.at(-1);
  }

  #popMany(count: number): unknown[] {
    if (this.#stack.length < count) throw this.#fail("its stack is empty");
    return this.#stack.splice(-count, count);
  }

  #popToMark(): unknown[] {
    const items = this.#stack;
    const below = this.#below.pop();
    if (below === undefined) throw this.#fail("a mark is missing");
    this.#stack = below;
    return items;
  }

  #fail(what: string) {
    return invalidCheckpoint(`${this.#what}: ${what}`);
  }
}

function code(character: string): number {
  return character.charCodeAt(0);
}
