/**
 * A radix tree of recent prompts: it finds the longest prefix that a prompt shares with any of them
 * in one walk along the prompt. Bounded by tokens; the least recently seen prompt is forgotten
 * first.
 */
interface Node {
  /** On the edge from the parent; empty for a root. */
  tokenIds: Uint32Array;
  parent: Node | undefined;
  /** By the first token of their edges. */
  readonly children: Map<number, Node>;
  readonly scope: string;
}

/** What a node costs besides its tokens, in tokens. */
const NODE_COST = 64;

export class RecentPrompts {
  readonly #maxTokens: number;
  readonly #roots = new Map<string, Node>();
  /** Where prompts end, the least recently seen first. */
  readonly #ends = new Set<Node>();
  #cost = 0;

  /** @param maxTokens 4 bytes each. What prompts share counts once. */
  constructor({ maxTokens }: { readonly maxTokens: number }) {
    this.#maxTokens = maxTokens;
  }

  /** In tokens, including the nodes of the tree. */
  get cost(): number {
    return this.#cost;
  }

  /**
   * Makes the prompt the most recent one. Of a prompt longer than half of `maxTokens` only so much
   * is stored.
   * @returns the length of the longest prefix that it shares with an earlier prompt of its scope
   */
  add(scope: string, tokenIds: readonly number[]): number {
    const length = Math.min(tokenIds.length, Math.floor(this.#maxTokens / 2));
    let node = this.#roots.get(scope) ?? this.#addRoot(scope);
    let at = 0;
    while (at < length) {
      const child = node.children.get(tokenIds[at]!);
      if (child === undefined) break;
      const numShared = sharedLength(child.tokenIds, tokenIds, at, length);
      at += numShared;
      node = numShared === child.tokenIds.length ? child : this.#split(child, numShared);
    }
    const shared = at;
    if (at < length) node = this.#addChild(node, new Uint32Array(tokenIds.slice(at, length)));
    this.#ends.delete(node);
    this.#ends.add(node);
    this.#forgetOldest();
    return shared;
  }

  #addRoot(scope: string): Node {
    const root: Node = { tokenIds: new Uint32Array(0), parent: undefined, children: new Map(), scope };
    this.#roots.set(scope, root);
    this.#cost += costOf(root);
    return root;
  }

  #addChild(parent: Node, tokenIds: Uint32Array): Node {
    const node: Node = { tokenIds, parent, children: new Map(), scope: parent.scope };
    parent.children.set(tokenIds[0]!, node);
    this.#cost += costOf(node);
    return node;
  }

  /** @returns a new node in the middle of the edge, after its first `length` tokens */
  #split(node: Node, length: number): Node {
    // Copies: a view would keep the whole edge in memory when one of the two is forgotten.
    const [upper, lower] = [node.tokenIds.slice(0, length), node.tokenIds.slice(length)];
    this.#cost -= costOf(node);
    const middle = this.#addChild(node.parent!, upper);
    node.tokenIds = lower;
    node.parent = middle;
    middle.children.set(lower[0]!, node);
    this.#cost += costOf(node);
    return middle;
  }

  #forgetOldest(): void {
    for (const end of this.#ends) {
      // The newest prompt stays.
      if (this.#cost <= this.#maxTokens || this.#ends.size === 1) return;
      this.#ends.delete(end);
      this.#prune(end);
    }
  }

  /** Removes the node and its ancestors that no longer lead to a prompt. */
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
