/**
 * Charts for the documents as SVG text: bars in groups, and lines over an axis. Nothing but numbers
 * in and text out; light and dark come from the reader's own setting.
 */

export interface BarGroup {
  readonly label: string;
  /** Series in the same order in every group; a missing one has no bar. */
  readonly bars: readonly { readonly series: string; readonly value: number; readonly label: string }[];
}

export interface LineSeries {
  readonly name: string;
  /** Series of one group share a colour. */
  readonly group: string;
  readonly dashed?: boolean;
  /** Ascending in x. Points that are not finite are left out. */
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

const WIDTH = 720;
const COLOURS = ["#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#475569"];
const STYLE = `<style>
text{font:13px system-ui,sans-serif;fill:#1f2937}.small{font-size:12px}.title{font-weight:600;font-size:15px}
.ground{fill:#ffffff}.grid{stroke:#e5e7eb}.axis{stroke:#6b7280}
@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.ground{fill:#111827}.grid{stroke:#374151}}
</style>`;

/**
 * Horizontal bars. Each group has its own scale: what is compared stands together, and units may
 * differ between groups.
 */
export function barChart(options: { readonly title: string; readonly groups: readonly BarGroup[] }): string {
  const series = [...new Set(options.groups.flatMap(({ bars }) => bars.map((bar) => bar.series)))];
  const left = 230;
  const room = WIDTH - left - 110;
  const colourOf = (name: string) => COLOURS[series.indexOf(name) % COLOURS.length]!;
  const named = series.map((name) => ({ name, colour: colourOf(name) }));
  const parts = [title(options.title), ...legend(named, 46)];
  let y = 66;
  for (const { label, bars } of options.groups) {
    const largest = Math.max(...bars.map(({ value }) => value));
    const middle = y + (bars.length * 18) / 2 + 4;
    parts.push(`<text x="${left - 12}" y="${round(middle)}" text-anchor="end">${escapeText(label)}</text>`);
    for (const bar of bars) {
      const width = largest > 0 ? Math.max(1, (bar.value / largest) * room) : 0;
      parts.push(
        `<rect x="${left}" y="${y}" width="${round(width)}" height="14" rx="2" fill="${colourOf(bar.series)}"/>`,
      );
      parts.push(`<text class="small" x="${round(left + width + 6)}" y="${y + 12}">${escapeText(bar.label)}</text>`);
      y += 18;
    }
    y += 14;
  }
  return page(y, options.title, parts);
}

/**
 * Lines over a linear x; y is logarithmic, since latencies span orders of magnitude, and begins and
 * ends at powers of ten.
 */
export function lineChart(options: {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly series: readonly LineSeries[];
}): string {
  const box = { left: 64, top: 74, width: WIDTH - 64 - 24, height: 260 };
  const groups = [...new Set(options.series.map(({ group }) => group))];
  const drawn = options.series.map((series) => ({
    ...series,
    colour: COLOURS[groups.indexOf(series.group) % COLOURS.length]!,
    points: series.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y) && y > 0),
  }));
  const all = drawn.flatMap(({ points }) => points);
  const xMax = Math.max(...all.map(({ x }) => x), Number.MIN_VALUE);
  const powers = all.length > 0 ? all.map(({ y }) => Math.log10(y)) : [0];
  const low = Math.floor(Math.min(...powers));
  const high = Math.max(low + 1, Math.ceil(Math.max(...powers)));
  const toX = (x: number) => round(box.left + (x / xMax) * box.width);
  const toY = (y: number) => round(box.top + box.height * (1 - (Math.log10(y) - low) / (high - low)));

  const parts = [title(options.title), ...legend(drawn, 46)];
  for (let power = low; power <= high; power++) {
    const y = toY(10 ** power);
    parts.push(`<line class="grid" x1="${box.left}" x2="${box.left + box.width}" y1="${y}" y2="${y}"/>`);
    parts.push(`<text class="small" x="${box.left - 8}" y="${y + 4}" text-anchor="end">${10 ** power}</text>`);
  }
  for (const x of [...new Set(all.map((point) => point.x))]) {
    parts.push(`<text class="small" x="${toX(x)}" y="${box.top + box.height + 18}" text-anchor="middle">${x}</text>`);
  }
  const bottom = box.top + box.height;
  parts.push(`<line class="axis" x1="${box.left}" x2="${box.left + box.width}" y1="${bottom}" y2="${bottom}"/>`);
  parts.push(
    `<text class="small" x="${WIDTH - 24}" y="${bottom + 38}" text-anchor="end">${escapeText(options.xLabel)}</text>`,
  );
  parts.push(`<text class="small" x="${box.left - 48}" y="${box.top - 10}">${escapeText(options.yLabel)}</text>`);
  for (const { points, colour, dashed } of drawn) {
    const places = points.map(({ x, y }) => `${toX(x)},${toY(y)}`);
    const dashes = dashed ? ' stroke-dasharray="6 4"' : "";
    parts.push(`<polyline points="${places.join(" ")}" fill="none" stroke="${colour}" stroke-width="2"${dashes}/>`);
    for (const place of places) {
      const [x, y] = place.split(",");
      parts.push(`<circle cx="${x}" cy="${y}" r="3" fill="${colour}"/>`);
    }
  }
  return page(bottom + 52, options.title, parts);
}

function page(height: number, name: string, parts: readonly string[]): string {
  const size = `width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}"`;
  const ground = `<rect class="ground" width="${WIDTH}" height="${height}" rx="8"/>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img" aria-label="${escapeText(name)}">\n${[STYLE, ground, ...parts].join("\n")}\n</svg>\n`;
}

function title(text: string): string {
  return `<text class="title" x="16" y="26">${escapeText(text)}</text>`;
}

function legend(
  entries: readonly { readonly name: string; readonly colour: string; readonly dashed?: boolean }[],
  y: number,
): string[] {
  let x = 16;
  return entries.flatMap(({ name, colour, dashed }) => {
    const at = x;
    x += 40 + name.length * 7.5;
    const dashes = dashed ? ' stroke-dasharray="6 4"' : "";
    return [
      `<line x1="${at}" x2="${at + 16}" y1="${y - 4}" y2="${y - 4}" stroke="${colour}" stroke-width="4"${dashes}/>`,
      `<text class="small" x="${at + 22}" y="${y}">${escapeText(name)}</text>`,
    ];
  });
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function escapeText(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
