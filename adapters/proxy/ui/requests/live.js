// Requests that have not ended, joined with their places in the queue.

import { ended, flights, keyOfRow, queue } from "../store.js";

/** @typedef {import("../types.js").Flight} Flight */
/**
 * @typedef {object} LiveRow
 * @property {string} key
 * @property {Flight | null} flight None for a command that waits, such as a load.
 * @property {any} place In the queue; null outside of it.
 * @property {boolean} hasEnded It has, and its record is on the way.
 */

const ENDED_MS = 5000;

/** How far a request is, in words. @type {Record<string, string>} */
const STATES = { queue: "waiting", evict: "waiting for evictions", start: "waiting for the start of its model", first: "running" };

/** Return the requests under way, the newest first; `rows` are the finished ones that are shown. @param {any[]} rows @returns {LiveRow[]} */
export function liveRows(rows) {
  const finished = new Set(rows.map((row) => keyOfRow(row.id)));
  const places = new Map(queue.value.queue.map((place) => [place.id ?? `place ${place.position}`, place]));
  const all = [...flights.value.values()].filter((flight) => !finished.has(flight.id)).sort((a, b) => b.began - a.began);
  /** @type {LiveRow[]} */
  const found = all.map((flight) => ({ key: flight.id, flight, place: places.get(flight.id) ?? null, hasEnded: false }));
  for (const [key, place] of places) {
    if (!flights.value.has(key) && !finished.has(key)) found.unshift({ key, flight: null, place, hasEnded: false });
  }
  const recent = performance.now() - ENDED_MS;
  for (const { flight, at } of ended.value.values()) {
    if (at > recent && !finished.has(flight.id)) found.push({ key: flight.id, flight, place: null, hasEnded: true });
  }
  return found;
}

/** Return a request under way as a finished one would be that ended now. @param {Flight} flight */
export function asFinished(flight) {
  const elapsed = (flight.ended ?? performance.now()) - flight.began;
  const more = Math.max(elapsed - flight.elapsed_ms, 0); // since the event that reported it
  const admitted = flight.wait_ms;
  const isWaiting = admitted === undefined;
  const wait = flight.wait && { ...flight.wait };
  if (wait && isWaiting && flight.phase !== "first" && flight.phase !== "response") {
    const part = /** @type {"queue_ms" | "evict_ms" | "start_ms"} */ (`${flight.phase}_ms`);
    wait[part] += more;
  }
  const waited = isWaiting ? elapsed : admitted;
  return { wait, wait_ms: waited, first_byte_ms: flight.first_byte_ms ?? (isWaiting ? 0 : elapsed), duration_ms: elapsed };
}

/** Return how far a request is, in words. @param {LiveRow} row */
export function stateOf({ flight, place, hasEnded }) {
  if (hasEnded) return "ended";
  if (place) return `place ${place.position} in the queue`;
  if (flight?.resp_status) return `responding ${flight.resp_status}`;
  return STATES[flight?.phase ?? ""] ?? (flight?.is_waiting ? "waiting" : "running");
}

/** @param {LiveRow} row @param {{model: string, status: string, text: string}} wanted */
export function isWanted({ flight, place }, wanted) {
  const model = flight?.model ?? place.model;
  const isWaiting = flight ? flight.is_waiting : true;
  if (wanted.model && model !== wanted.model) return false;
  if (wanted.status && wanted.status !== (isWaiting ? "waiting" : "running")) return false;
  const text = wanted.text.toLowerCase();
  const texts = [model, flight?.req_path, flight?.request_id, flight?.metadata?.session, place?.why];
  return texts.some((each) => String(each ?? "").toLowerCase().includes(text));
}
