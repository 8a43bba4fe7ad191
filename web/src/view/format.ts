/** Numbers for people. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export function count(value: number): string {
  return whole.format(value);
}

export function bytes(value: number): string {
  if (value < 1024) return `${value} B`;
  if (value < 1024 ** 2) return `${short.format(value / 1024)} KiB`;
  if (value < 1024 ** 3) return `${short.format(value / 1024 ** 2)} MiB`;
  return `${short.format(value / 1024 ** 3)} GiB`;
}

export function rate(tokensPerSecond: number): string {
  return `${whole.format(tokensPerSecond)} tokens/s`;
}

export function milliseconds(value: number): string {
  return value < 1000 ? `${short.format(value)} ms` : `${short.format(value / 1000)} s`;
}

export function percent(share: number): string {
  return `${whole.format(share * 100)}%`;
}
