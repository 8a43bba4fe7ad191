/**
 * A model's name on the hub: `org/name`, or `org/name@revision` (branch, tag or commit); with the
 * file of its weights, `org/name/file.pth`, where a repository has those of several models.
 */

export interface ModelId {
  /** `org/name` */
  readonly repo: string;
  readonly revision: string;
  readonly file?: string;
}

const DEFAULT_REVISION = "main";
const COMMIT = /^[0-9a-f]{40}$/;

/** The hub's rule for both halves of a name: no dot or dash at either end. */
const PART = "[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?";
const FILE = "[A-Za-z0-9_][A-Za-z0-9._-]*\\.(?:pth|safetensors)";
const MODEL_ID = new RegExp(`^(${PART}/${PART})(?:/(${FILE}))?(?:@([A-Za-z0-9_][A-Za-z0-9._/-]*))?$`);

/** @returns undefined for what cannot be the name of a model on the hub, such as a path */
export function parseModelId(text: string): ModelId | undefined {
  const [, repo, file, revision = DEFAULT_REVISION] = MODEL_ID.exec(text) ?? [];
  // In the cache two dashes separate the parts of a folder's name, and two dots would leave the
  // folder.
  if (repo === undefined || /--|\.\./.test(`${repo}/${revision}`) || file?.includes("..")) return undefined;
  return { repo, revision, ...(file !== undefined && { file }) };
}

export function formatModelId({ repo, revision, file }: ModelId): string {
  const name = file === undefined ? repo : `${repo}/${file}`;
  return revision === DEFAULT_REVISION ? name : `${name}@${revision}`;
}

/** A commit always names the same files; branches and tags move. */
export function isCommit(revision: string): boolean {
  return COMMIT.test(revision);
}
