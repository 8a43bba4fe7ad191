/** How a model on the hub is named: `org/name`, or `org/name@revision` for a branch, a tag or a commit. */

export interface ModelId {
  /** `org/name` */
  readonly repo: string;
  readonly revision: string;
}

const DEFAULT_REVISION = "main";
const COMMIT = /^[0-9a-f]{40}$/;

/** Two parts of letters, digits, `_`, `-` and `.`, none beginning or ending with a dot or a dash, as the hub has them. */
const PART = "[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?";
const MODEL_ID = new RegExp(`^(${PART}/${PART})(?:@([A-Za-z0-9_][A-Za-z0-9._/-]*))?$`);

/** @returns undefined for what cannot be the name of a model on the hub, such as a path. */
export function parseModelId(text: string): ModelId | undefined {
  const [, repo, revision = DEFAULT_REVISION] = MODEL_ID.exec(text) ?? [];
  // The cache's folders separate with two dashes; two dots would climb out of them.
  if (repo === undefined || /--|\.\./.test(`${repo}/${revision}`)) return undefined;
  return { repo, revision };
}

export function formatModelId({ repo, revision }: ModelId): string {
  return revision === DEFAULT_REVISION ? repo : `${repo}@${revision}`;
}

/** A commit names the same files for ever; branches and tags move. */
export function isCommit(revision: string): boolean {
  return COMMIT.test(revision);
}
