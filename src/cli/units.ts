/** Numbers for people. */

/** 1536 → `1.5 KiB` */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1024 ** step;
  return `${step === 0 || value >= 100 ? Math.round(value) : Number(value.toFixed(value >= 10 ? 1 : 2))} ${units[step]}`;
}

/** 3870000 → `3.87M` */
export function formatCount(count: number): string {
  for (const [size, letter] of [
    [1e9, "B"],
    [1e6, "M"],
    [1e3, "k"],
  ] as const) {
    if (count >= size) return `${Number((count / size).toPrecision(3))}${letter}`;
  }
  return String(count);
}
