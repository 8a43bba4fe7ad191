/** How many files this process may have open. */

/** Needed to start: Node reads many modules at the same time; 90 to 100 were measured. */
const MIN_OPEN_FILES = 128;

/**
 * @throws where there are too few to start, which would otherwise show now here, now there, or only
 * under load
 */
export function requireOpenFiles(): void {
  const { userLimits } = process.report.getReport() as { userLimits?: { open_files: { soft: number | "unlimited" } } };
  const given = userLimits?.open_files.soft ?? "unlimited";
  if (given === "unlimited" || given >= MIN_OPEN_FILES) return;
  const needed = `at least ${MIN_OPEN_FILES}, and one for each connection (ulimit -n, LimitNOFILE)`;
  const message = `EMFILE: this process may have ${given} files open at once; it needs ${needed}`;
  throw Object.assign(new Error(message), { code: "EMFILE" });
}
