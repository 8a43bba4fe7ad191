/**
 * Artifacts that all test files share, each compiled where one of them needs it first. Nobody
 * changes what is there.
 */
import { tmpdir } from "node:os";
import path from "node:path";

/** In the folder that global-setup.ts makes for the run: a run begins without any. */
export const SHARED_ARTIFACTS = path.join(tmpdir(), "artifacts");
