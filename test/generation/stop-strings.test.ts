import fc from "fast-check";
import { expect, test } from "vitest";
import { MAX_STOP_TEXT_LENGTH, StopStringMatcher, StopStrings } from "../../src/generation/stop-strings.ts";

interface Scanned {
  readonly text: string;
  readonly matched: string | undefined;
}

function scan(stops: readonly string[], chunks: readonly string[], includeStopString = false): Scanned {
  const matcher = new StopStringMatcher(new StopStrings(stops), { includeStopString });
  let text = "";
  for (const chunk of chunks) {
    const scanned = matcher.push(chunk);
    text += scanned.text;
    if (scanned.matched !== undefined) return { text, matched: scanned.matched };
  }
  return { text: text + matcher.flush(), matched: undefined };
}

/** The definition: the first to be complete; of several that end together the longest. */
function expected(stops: readonly string[], text: string, includeStopString: boolean): Scanned {
  const found = stops
    .map((stop) => ({ stop, start: text.indexOf(stop) }))
    .filter(({ start }) => start !== -1)
    .map(({ stop, start }) => ({ stop, start, end: start + stop.length }))
    .sort((a, b) => a.end - b.end || a.start - b.start);
  const first = found[0];
  if (first === undefined) return { text, matched: undefined };
  return { text: text.slice(0, includeStopString ? first.end : first.start), matched: first.stop };
}

// Few letters, so that strings overlap, repeat and nearly match.
const word = fc.string({ unit: fc.constantFrom("a", "b", "é", "😀"), minLength: 1, maxLength: 6 });
const stops = fc.array(word, { minLength: 1, maxLength: 6 });
const chunks = fc.array(fc.string({ unit: fc.constantFrom("a", "b", "c", "é", "😀"), maxLength: 5 }), {
  maxLength: 12,
});

test("the result is that of a search in the whole text, however it is cut", () => {
  fc.assert(
    fc.property(stops, chunks, fc.boolean(), (given, pieces, includeStopString) => {
      const whole = expected(given, pieces.join(""), includeStopString);
      expect(scan(given, pieces, includeStopString)).toEqual(whole);
      expect(scan(given, [...pieces.join("")], includeStopString)).toEqual(whole);
    }),
    { numRuns: 2000 },
  );
});

test("exactly the longest suffix that could become a stop string is held back", () => {
  fc.assert(
    fc.property(stops, chunks, (given, pieces) => {
      const matcher = new StopStringMatcher(new StopStrings(given), { includeStopString: false });
      let shown = "";
      let seen = "";
      for (const piece of pieces) {
        const { text, matched } = matcher.push(piece);
        if (matched !== undefined) return;
        shown += text;
        seen += piece;
        const starts = given.flatMap((stop) => Array.from({ length: stop.length }, (_, i) => stop.slice(0, i + 1)));
        const longest = Math.max(0, ...starts.filter((start) => seen.endsWith(start)).map((start) => start.length));
        expect(seen.length - shown.length).toBe(longest);
      }
    }),
    { numRuns: 500 },
  );
});

test("text that cannot begin a stop string is returned at once", () => {
  const matcher = new StopStringMatcher(new StopStrings(["\nUser:"]), { includeStopString: false });
  expect(matcher.push("Hello.\n").text).toBe("Hello.");
  expect(matcher.push("\n").text).toBe("\n");
  expect(matcher.push("Us").text).toBe("");
  expect(matcher.push("ual").text).toBe("\nUsual");
});

test("many long strings cost no more per character than one", () => {
  const long = Array.from({ length: 60 }, (_, i) => `${"a".repeat(250)}${i}`);
  const matcher = new StopStringMatcher(new StopStrings(long), { includeStopString: false });
  const startedAtMs = performance.now();
  for (let i = 0; i < 2000; i++) matcher.push("aaab");
  // 60 searches of a 250-character window for each of 8000 characters would take seconds.
  expect(performance.now() - startedAtMs).toBeLessThan(500);
});

test("an empty string, and more text than the bound, are refused", () => {
  expect(() => new StopStrings([""])).toThrow(/must not be empty/);
  expect(() => new StopStrings(["x".repeat(MAX_STOP_TEXT_LENGTH + 1)])).toThrow(/16384 .* given 16385/);
});
