// Numbers and times as people say them.
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const COUNT = new Intl.NumberFormat("en");

export const NONE = "–";

export const known = (value) => value !== null && value !== undefined;
export const count = (value) => (known(value) ? COUNT.format(Math.round(value)) : NONE);
export const percent = (value, digits = 1) => (known(value) ? `${(100 * value).toFixed(digits)} %` : NONE);
export const clock = (seconds) => TIME.format(new Date(1000 * seconds));

export function fine(value) {
  if (!known(value)) return NONE;
  return value >= 100 ? count(value) : value.toFixed(value >= 10 ? 1 : 2);
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let step = 0;
  while (value >= 999.5 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  return `${value < 9.95 && step ? value.toFixed(1) : Math.round(value)} ${units[step]}`;
}

export function span(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

export const one = (value) => (known(value) ? value.toFixed(1) : NONE);
export const ago = (seconds) => (known(seconds) ? (seconds < 1 ? "just now" : `${span(seconds)} ago`) : NONE);
