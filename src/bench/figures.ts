/**
 * What every benchmark produces: figures with a unit and, for some, a target. Also the statistics
 * they come from, and tables.
 */

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  readonly target?: { readonly op: ">=" | "<="; readonly value: number };
}

export function atMost(value: number): Pick<Figure, "target"> {
  return { target: { op: "<=", value } };
}

export function atLeast(value: number): Pick<Figure, "target"> {
  return { target: { op: ">=", value } };
}

/** undefined for a figure without a target. */
export function isMet({ value, target }: Figure): boolean | undefined {
  if (target === undefined) return undefined;
  return target.op === ">=" ? value >= target.value : value <= target.value;
}

/** Nearest rank: always one of the values; NaN for none. */
export function percentile(values: readonly number[], p: number): number {
  if (values.length === 0) return Number.NaN;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil((p / 100) * sorted.length) - 1))]!;
}

export function median(values: readonly number[]): number {
  return percentile(values, 50);
}

/** Least-squares slope of y over x, in units of y per unit of x. */
export function slope(points: readonly { readonly x: number; readonly y: number }[]): number {
  const meanX = points.reduce((sum, p) => sum + p.x, 0) / points.length;
  const meanY = points.reduce((sum, p) => sum + p.y, 0) / points.length;
  let covariance = 0;
  let variance = 0;
  for (const { x, y } of points) {
    covariance += (x - meanX) * (y - meanY);
    variance += (x - meanX) ** 2;
  }
  return variance === 0 ? 0 : covariance / variance;
}

/** Differences between neighbours. */
export function gaps(values: readonly number[]): number[] {
  return values.slice(1).map((value, i) => value - values[i]!);
}

export function formatTable(title: string, figures: readonly Figure[]): string {
  const rows = figures.map((figure) => {
    const { name, value, unit, target } = figure;
    const met = isMet(figure);
    return [
      name,
      `${formatNumber(value)} ${unit}`,
      target === undefined ? "" : `${target.op} ${formatNumber(target.value)}`,
      met === undefined ? "" : met ? "yes" : "no",
    ];
  });
  return markdownTable([title, "measured", "target", "met"], rows);
}

/** With padded columns, to be read on a terminal too. */
export function markdownTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((cell, column) => Math.max(cell.length, 3, ...rows.map((row) => row[column]!.length)));
  const line = (cells: readonly string[]) => `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  return [line(header), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n");
}

export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const magnitude = Math.abs(value);
  if (magnitude >= 100) return String(Math.round(value));
  return magnitude >= 1 ? value.toFixed(2) : value.toPrecision(3);
}
