/**
 * Values of `format` that strings can be held to, as regular expressions. Each matches a part of
 * what the format allows that is valid for any validator: no leap days, host names in ASCII.
 */
const DATE =
  "\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))";
const TIME = "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:0\\d|1[0-3]):[0-5]\\d)";
const LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?";
const HOST = `${LABEL}(?:\\.${LABEL}){0,3}`;
const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
const HOURS = "T(?:\\d{1,3}H(?:\\d{1,2}M)?(?:\\d{1,2}S)?|\\d{1,3}M(?:\\d{1,2}S)?|\\d{1,3}S)";
const DAYS = `\\d{1,3}D(?:${HOURS})?`;
const MONTHS = `\\d{1,2}M(?:${DAYS}|${HOURS})?`;
const YEARS = `\\d{1,3}Y(?:${MONTHS}|${DAYS}|${HOURS})?`;

export const FORMATS: ReadonlyMap<string, string> = new Map([
  ["date", DATE],
  ["time", TIME],
  ["date-time", `${DATE}T${TIME}`],
  ["duration", `P(?:${YEARS}|${MONTHS}|${DAYS}|${HOURS}|\\d{1,3}W)`],
  ["email", `[A-Za-z0-9]{1,20}(?:[._+-][A-Za-z0-9]{1,20}){0,3}@${LABEL}(?:\\.[A-Za-z]{2,10}){1,2}`],
  ["hostname", HOST],
  ["ipv4", `${OCTET}(?:\\.${OCTET}){3}`],
  ["ipv6", "[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){7}"],
  ["uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"],
  ["uri", `https?://${HOST}(?::[1-9]\\d{0,3})?(?:/[A-Za-z0-9._~-]{0,40}){0,8}(?:\\?[A-Za-z0-9._~=&-]{1,80})?`],
]);
