// Requests that have not ended, as the timeline draws them: what each is waiting for, up to now.

import { asFinished, liveRows, stateOf } from "../requests/live.js";

/** @typedef {import("./types.js").WaitingRequest} WaitingRequest */
/** @typedef {import("./types.js").Span} Span */

/**
 * Return the requests under way; those that have just ended stay until their record is there.
 *
 * @param {WaitingRequest[]} finished
 * @returns {WaitingRequest[]} The longest wait first.
 */
export function waitingNow(finished) {
  return liveRows(finished)
    .flatMap((row) => {
      const { flight, place } = row;
      if (!flight) return [];
      const now = asFinished(flight);
      const wait = now.wait ?? { queue_ms: now.wait_ms, evict_ms: 0, start_ms: 0, hooks_ms: 0, resident: [], evicted: [], reasons: [] };
      const first = flight.wait_ms === undefined ? 0 : Math.max(now.first_byte_ms - now.wait_ms, 0);
      return [{
        id: 0, key: flight.id, model: flight.model, at: Date.now() - now.duration_ms, status: flight.resp_status, requests: 1,
        rejected: 0, failed: 0, canceled: 0, queue_ms: wait.queue_ms, evict_ms: wait.evict_ms, start_ms: wait.start_ms,
        hooks_ms: wait.hooks_ms, first_byte_ms: first, duration_ms: now.duration_ms, swap_id: flight.swap_id ?? "",
        wait, state: place?.why ? `${stateOf(row)}: ${place.why}` : stateOf(row), admitted: flight.wait_ms,
      }];
    })
    .sort((a, b) => waitOf(b) - waitOf(a));
}

/** Return the wait of a request before it was admitted, in ms. @param {WaitingRequest} row */
export const waitOf = (row) => row.queue_ms + row.evict_ms + row.start_ms + row.hooks_ms;

/** Return the lanes with what is being answered now. @param {import("./types.js").Lane[]} lanes @param {WaitingRequest[]} live @param {number} now */
export function withAnswers(lanes, live, now) {
  return lanes.map((lane) => {
    const own = live.filter((row) => row.model === lane.model && row.admitted !== undefined);
    if (!own.length) return lane;
    const at = Math.min(...own.map((row) => row.at + (row.admitted ?? 0)));
    return { ...lane, answering: [...lane.answering, { at, until: now, state: "answering" }] };
  });
}

/** Return how requests ended that were not served, in words; empty if all were. @param {WaitingRequest} row */
export function endOf(row) {
  const parts = [[row.rejected, "rejected"], [row.failed, "failed"], [row.canceled, "canceled"]].filter(([count]) => count);
  return parts.map(([count, name]) => (row.requests > 1 ? `${count} ${name}` : name)).join(", ");
}
