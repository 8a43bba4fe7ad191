/** Python's datetime.now().strftime(), as the C library formats it in its own locale. */
import { unsupported } from "./error.ts";

const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = [
  ...["January", "February", "March", "April", "May", "June", "July"],
  ...["August", "September", "October", "November", "December"],
];

/** Directives made of others. */
const COMPOSED: Readonly<Record<string, string>> = {
  ...{ c: "%a %b %e %H:%M:%S %Y", D: "%m/%d/%y", F: "%Y-%m-%d", h: "%b", R: "%H:%M", r: "%I:%M:%S %p" },
  ...{ T: "%H:%M:%S", x: "%m/%d/%y", X: "%H:%M:%S", n: "\n", t: "\t", "%": "%%" },
};

/** @throws TemplateError for directives that are not supported */
export function strftime(format: string, date: Date): string {
  return format.replace(/%([-_0^]?)([\s\S]?)/g, (written, flag: string, directive: string) => {
    const value = directive === "%" && flag === "" ? "%" : field(directive, date);
    if (value === undefined) throw unsupported(`strftime's ${written}`);
    if (typeof value === "string") {
      if (flag !== "" && flag !== "^") throw unsupported(`strftime's ${written}`);
      return flag === "^" ? value.toUpperCase() : value;
    }
    const [number, width, padding] = value;
    if (flag === "^") throw unsupported(`strftime's ${written}`);
    if (flag === "-") return String(number);
    return String(number).padStart(width, { _: " ", "0": "0", "": padding }[flag]);
  });
}

type Padded = readonly [value: number, width: number, padding: "0" | " "];

function field(directive: string, date: Date): string | Padded | undefined {
  if (Object.hasOwn(COMPOSED, directive)) return strftime(COMPOSED[directive]!, date);
  const hour = date.getHours();
  switch (directive) {
    case "a":
      return DAYS[date.getDay()]!.slice(0, 3);
    case "A":
      return DAYS[date.getDay()]!;
    case "b":
      return MONTHS[date.getMonth()]!.slice(0, 3);
    case "B":
      return MONTHS[date.getMonth()]!;
    case "C":
      return [Math.floor(date.getFullYear() / 100), 2, "0"];
    case "d":
      return [date.getDate(), 2, "0"];
    case "e":
      return [date.getDate(), 2, " "];
    case "f":
      return String(date.getMilliseconds() * 1000).padStart(6, "0");
    case "G":
      return [isoWeek(date).year, 4, "0"];
    case "g":
      return [isoWeek(date).year % 100, 2, "0"];
    case "H":
      return [hour, 2, "0"];
    case "I":
      return [hour % 12 || 12, 2, "0"];
    case "j":
      return [dayOfYear(date) + 1, 3, "0"];
    case "k":
      return [hour, 2, " "];
    case "l":
      return [hour % 12 || 12, 2, " "];
    case "M":
      return [date.getMinutes(), 2, "0"];
    case "m":
      return [date.getMonth() + 1, 2, "0"];
    case "P":
      return hour < 12 ? "am" : "pm";
    case "p":
      return hour < 12 ? "AM" : "PM";
    case "S":
      return [date.getSeconds(), 2, "0"];
    case "s":
      return String(Math.floor(date.getTime() / 1000));
    case "U":
      return [Math.floor((dayOfYear(date) + 7 - date.getDay()) / 7), 2, "0"];
    case "u":
      return [date.getDay() || 7, 1, "0"];
    case "V":
      return [isoWeek(date).week, 2, "0"];
    case "W":
      return [Math.floor((dayOfYear(date) + 7 - ((date.getDay() + 6) % 7)) / 7), 2, "0"];
    case "w":
      return [date.getDay(), 1, "0"];
    case "Y":
      return [date.getFullYear(), 4, "0"];
    case "y":
      return [date.getFullYear() % 100, 2, "0"];
    // Python's datetime.now() has no zone.
    case "Z":
    case "z":
      return "";
  }
  return undefined;
}

/** From 0. Counted in calendar days: a day may have 23 or 25 hours. */
function dayOfYear(date: Date): number {
  const year = date.getFullYear();
  return (Date.UTC(year, date.getMonth(), date.getDate()) - Date.UTC(year, 0, 1)) / 86_400_000;
}

/** The week belongs to the year that its Thursday is in. */
function isoWeek(date: Date): { year: number; week: number } {
  const thursday = new Date(date.getFullYear(), date.getMonth(), date.getDate() + 4 - (date.getDay() || 7), 12);
  return { year: thursday.getFullYear(), week: Math.floor(dayOfYear(thursday) / 7) + 1 };
}
