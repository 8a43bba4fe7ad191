/** Spelling help: which known name was meant. Case and separators do not count, so `max-batch` is near `maxBatch`. */

/** Those of `known` that are equally near and nearest, none further than two edits or a third of its letters. */
export function nearest(name: string, known: readonly string[]): string[] {
  const wanted = plain(name);
  const furthest = Math.max(2, Math.floor(wanted.length / 3));
  const distances = known.map((candidate) => editDistance(wanted, plain(candidate)));
  const least = Math.min(...distances);
  return known.filter((_, index) => distances[index] === least && least <= furthest);
}

function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[^a-z0-9]/g, "");
}

/** Levenshtein's distance, one row of the table at a time. */
function editDistance(a: string, b: string): number {
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const substituted = above[column - 1]! + (a[row - 1] === b[column - 1] ? 0 : 1);
      current.push(Math.min(substituted, above[column]! + 1, current[column - 1]! + 1));
    }
    above = current;
  }
  return above[b.length]!;
}
