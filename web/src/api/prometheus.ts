/** Prometheus' text format, as far as the page reads it. */

/** The sum of all samples with this name; undefined if there is none. */
export function sample(text: string, name: string): number | undefined {
  let sum: number | undefined;
  for (const line of text.split("\n")) {
    if (!line.startsWith(name)) continue;
    const match = /^(?:\{[^}]*\})? (\S+)/.exec(line.slice(name.length));
    if (match !== null) sum = (sum ?? 0) + Number(match[1]);
  }
  return sum;
}
