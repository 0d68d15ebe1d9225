// Where the time of a request went: a bar, and the same in words.

import { html } from "./vendor/preact.js";
import { seconds } from "./format.js";

/** Phases of a request in their order; `name` is shown, `kind` is the color. */
const NAMES = {
  queue: "in the queue",
  evict: "until others had stopped",
  start: "until the model had started",
  hooks: "for the hooks of its start",
  wait: "until the model was ready",
  first: "until the first byte",
  response: "response",
};

/** @typedef {{kind: keyof typeof NAMES, ms: number}} Phase */

/**
 * Return the phases of a request that took time.
 *
 * @param {any} row as of /api/metrics/activity; `wait` is there if it has waited for its model
 * @returns {Phase[]}
 */
export function phasesOf(row) {
  const waited = Math.max(row.wait_ms ?? 0, 0);
  const first = Math.max(row.first_byte_ms ?? 0, 0);
  const end = Math.max(row.duration_ms ?? 0, first, waited);
  /** @type {Phase[]} */
  const phases = [];
  if (row.wait) {
    const { queue_ms: queue = 0, evict_ms: evict = 0, start_ms: start = 0, hooks_ms: hooks = 0 } = row.wait;
    const before = Math.max(waited - queue - evict - start - hooks, 0); // until the request came into the queue
    phases.push({ kind: "queue", ms: queue + before }, { kind: "evict", ms: evict }, { kind: "start", ms: start }, { kind: "hooks", ms: hooks });
  } else {
    phases.push({ kind: "wait", ms: waited });
  }
  if (first >= waited) phases.push({ kind: "first", ms: first - waited }, { kind: "response", ms: end - first });
  else phases.push({ kind: "response", ms: end - waited });
  return phases.filter((phase) => phase.ms >= 1);
}

/** Draw the phases of a request; `scale` is the number of milliseconds of the whole width. @param {{row: any, scale: number}} props */
export function Waterfall({ row, scale }) {
  const phases = phasesOf(row);
  const text = phases.map((phase) => `${NAMES[phase.kind]}: ${seconds(phase.ms / 1000)}`).join(", ");
  return html`
    <span class="waterfall" role="img" aria-label=${text || "no time"} title=${text}>
      ${phases.map(
        (phase) => html`<span key=${phase.kind} class=${`phase ${phase.kind}`} style=${{ width: `${(100 * phase.ms) / Math.max(scale, 1)}%` }}></span>`,
      )}
    </span>`;
}

/** The phases as a list with their times. @param {{row: any}} props */
export function Phases({ row }) {
  return html`
    <ul class="phases">
      ${phasesOf(row).map(
        (phase) => html`
          <li key=${phase.kind}><span class=${`swatch phase ${phase.kind}`} aria-hidden="true"></span>
            <span class="amount">${seconds(phase.ms / 1000)}</span> ${NAMES[phase.kind]}</li>`,
      )}
    </ul>`;
}
