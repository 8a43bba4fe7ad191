/**
 * Which prompts were seen lately, as a tree of what they share: it says where a prompt leaves the way of all earlier
 * ones, in one walk along the prompt. Bounded by tokens; the prompt seen longest ago is forgotten first.
 */
interface Node {
  /** The edge that leads here from the parent; empty for a root. */
  tokenIds: Uint32Array;
  parent: Node | undefined;
  /** By the first token of their edges. */
  readonly children: Map<number, Node>;
  /** Which tree it is in. */
  readonly scope: string;
}

/** What a node costs beside its tokens, in tokens. */
const NODE_COST = 64;

export class RecentPrompts {
  readonly #maxTokens: number;
  readonly #roots = new Map<string, Node>();
  /** Where prompts end, the one seen longest ago first. */
  readonly #ends = new Set<Node>();
  #cost = 0;

  /** @param maxTokens 4 bytes each. What prompts share counts once. */
  constructor({ maxTokens }: { readonly maxTokens: number }) {
    this.#maxTokens = maxTokens;
  }

  /** In tokens, with what the tree itself takes. */
  get cost(): number {
    return this.#cost;
  }

  /**
   * From now on the prompt is the one seen last. Of a prompt beyond half of `maxTokens` its beginning is remembered.
   * @returns the length of the longest prefix that it shares with any prompt seen before
   */
  see(scope: string, tokenIds: readonly number[]): number {
    const length = Math.min(tokenIds.length, Math.floor(this.#maxTokens / 2));
    let node = this.#root(scope);
    let at = 0;
    while (at < length) {
      const child = node.children.get(tokenIds[at]!);
      if (child === undefined) break;
      const numShared = sharedLength(child.tokenIds, tokenIds, at, length);
      at += numShared;
      node = numShared === child.tokenIds.length ? child : this.#split(child, numShared);
    }
    const shared = at;
    if (at < length) node = this.#add(node, new Uint32Array(tokenIds.slice(at, length)));
    this.#ends.delete(node);
    this.#ends.add(node);
    this.#forgetOldest();
    return shared;
  }

  #root(scope: string): Node {
    const known = this.#roots.get(scope);
    if (known !== undefined) return known;
    const root: Node = { tokenIds: new Uint32Array(0), parent: undefined, children: new Map(), scope };
    this.#roots.set(scope, root);
    this.#cost += costOf(root);
    return root;
  }

  #add(parent: Node, tokenIds: Uint32Array): Node {
    const node: Node = { tokenIds, parent, children: new Map(), scope: parent.scope };
    parent.children.set(tokenIds[0]!, node);
    this.#cost += costOf(node);
    return node;
  }

  /** @returns a new node in the middle of the edge, behind its first `length` tokens */
  #split(node: Node, length: number): Node {
    // Copies: a view would keep the whole edge in memory when one of the two is forgotten.
    const [upper, lower] = [node.tokenIds.slice(0, length), node.tokenIds.slice(length)];
    this.#cost -= costOf(node);
    const middle = this.#add(node.parent!, upper);
    node.tokenIds = lower;
    node.parent = middle;
    middle.children.set(lower[0]!, node);
    this.#cost += costOf(node);
    return middle;
  }

  #forgetOldest(): void {
    for (const end of this.#ends) {
      // The last one seen stays.
      if (this.#cost <= this.#maxTokens || this.#ends.size === 1) return;
      this.#ends.delete(end);
      this.#prune(end);
    }
  }

  /** Removes the node and those above it that lead nowhere any more. */
  #prune(from: Node): void {
    let node: Node | undefined = from;
    while (node !== undefined && node.children.size === 0 && !this.#ends.has(node)) {
      this.#cost -= costOf(node);
      if (node.parent === undefined) this.#roots.delete(node.scope);
      else node.parent.children.delete(node.tokenIds[0]!);
      node = node.parent;
    }
  }
}

function costOf(node: Node): number {
  return node.tokenIds.length + NODE_COST;
}

function sharedLength(edge: Uint32Array, tokenIds: readonly number[], at: number, end: number): number {
  const most = Math.min(edge.length, end - at);
  let length = 0;
  while (length < most && edge[length] === tokenIds[at + length]) length++;
  return length;
}
