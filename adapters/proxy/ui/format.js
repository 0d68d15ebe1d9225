// Numbers, times and names as text.

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** Return a duration in words. @param {number} value seconds, >= 0 */
export function seconds(value) {
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 100) return `${value.toFixed(1)} s`;
  if (value < 6000) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} days`;
}

/** Return a time of day, with the date unless it is today. @param {number} ms since 1970 */
export function clockTime(ms) {
  const at = new Date(ms);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? at.toLocaleTimeString() : at.toLocaleString();
}

/** Return an amount as the proxy writes it: GiB, or MiB below one; KiB below that. @param {number} bytes */
export function size(bytes) {
  if (bytes > 0 && bytes < MIB) return `${Math.ceil(bytes / 1024)} KiB`;
  return Math.abs(bytes) < GIB ? `${(bytes / MIB).toFixed(0)} MiB` : `${(bytes / GIB).toFixed(1)} GiB`;
}

/** @param {unknown} value @returns {value is number} */
const known = (value) => typeof value === "number" && value >= 0;

/** @param {unknown} value a number >= 0; all else is unknown */
export const count = (value) => (known(value) ? value.toLocaleString() : "–");

/** @param {unknown} value tokens per second */
export const speed = (value) => (known(value) && value > 0 ? (value < 1000 ? value.toFixed(1) : count(Math.round(value))) : "–");

/** @param {string} name */
export const words = (name) => name.replaceAll("_", " ");

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

/** Compare names so that "m2" comes before "m10". @param {string} a @param {string} b */
export const byName = (a, b) => collator.compare(a, b);

/** @param {unknown} error @returns {string} */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));
