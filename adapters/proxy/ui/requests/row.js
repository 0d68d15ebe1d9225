// One request in the table: the same row from its arrival to its end and afterwards.

import { html } from "../vendor/preact.js";
import { command } from "../api.js";
import { clockTime, count, seconds } from "../format.js";
import { clock } from "../store.js";
import { Phases, Waterfall } from "../waterfall.js";
import { asFinished, stateOf } from "./live.js";

/** @typedef {import("./live.js").LiveRow} LiveRow */

export const COLUMNS = 9;

/**
 * @param {{live?: LiveRow, done?: any, scale: number, isOpen: boolean, open: () => void, show: () => void, curl: () => void}} props
 *   Either `live`, a request under way, or `done`, a finished one; `scale` is the time of the whole width in ms.
 */
export function RequestRow({ live, done, scale, isOpen, open, show, curl }) {
  if (live) return underWay(live, scale, isOpen, open);
  const { tokens } = done;
  const isBad = done.resp_status_code >= 400 || done.error_msg;
  return html`
    <tr class="done">
      <td class="time">${clockTime(Date.parse(done.timestamp))}</td><td>${done.model}</td><td>${done.req_path}</td>
      <td class="why"><span class=${isBad ? "bad" : "good"}>${done.resp_status_code}</span>
        ${done.error_msg && html`<small>${done.error_msg}</small>`}</td>
      <td class="number prompt">${count(tokens.input_tokens)}<small>${promptFacts(tokens)}</small></td>
      <td class="number">${count(tokens.output_tokens)}<small>${rate(tokens.tokens_per_second)}</small></td>
      <td class="number">${seconds((done.wait_ms ?? 0) / 1000)}</td>
      <td class="number">${seconds(done.duration_ms / 1000)}<${Waterfall} row=${done} scale=${scale} /></td>
      <td class="buttons">
        <button type="button" aria-expanded=${isOpen} aria-label=${`Time of request ${done.id}`} onClick=${open}>Time</button>
        ${done.has_capture &&
        html`
          <button type="button" aria-label=${`Show request ${done.id}`} onClick=${show}>Show</button>
          <button type="button" aria-label=${`Copy request ${done.id} as curl`} onClick=${curl}>curl</button>`}
      </td>
    </tr>
    ${isOpen && html`<tr class="details"><td colspan=${COLUMNS}><${Details} row=${done} swap=${done.swap_id} /></td></tr>`}`;
}

/** @param {unknown} value tokens per second */
function rate(value) {
  if (typeof value !== "number" || value <= 0) return "";
  return `${value < 100 ? value.toFixed(1) : count(Math.round(value))} per s`;
}

/** @param {any} tokens */
const promptFacts = (tokens) => [tokens.cache_tokens > 0 && `${count(tokens.cache_tokens)} cached`, rate(tokens.prompt_per_second)].filter(Boolean).join(", ");

/** No component, so that the row stays in the page when the request ends. @param {LiveRow} row @param {number} scale @param {boolean} isOpen @param {() => void} open */
function underWay(row, scale, isOpen, open) {
  const { flight, place, hasEnded } = row;
  const since = place && clock.value !== null ? Math.max(0, Date.now() / 1000 - clock.value - place.since) * 1000 : 0;
  const now = flight ? asFinished(flight) : { wait_ms: since, first_byte_ms: 0, duration_ms: since, wait: null };
  const at = Date.now() - now.duration_ms;
  return html`
    <tr class=${place ? "live queued" : "live"} data-flight=${flight?.id}>
      <td class="time">${clockTime(flight ? Date.parse(flight.timestamp) : at)}</td><td>${flight?.model ?? place.model}</td>
      <td>${flight ? flight.req_path : "load by command"}${flight && html`<small>${flight.remote_ip}</small>`}</td>
      <td class="why"><span class="state-now">${stateOf(row)}</span>
        ${place?.why && html`<small>${place.why}${place.priority ? ` (priority ${place.priority})` : ""}</small>`}
        ${flight && flight.resp_bytes > 0 && html`<small>${count(flight.resp_bytes)} bytes</small>`}</td>
      <td class="number">–</td><td class="number">–</td>
      <td class="number">${seconds(now.wait_ms / 1000)}</td>
      <td class="number">${seconds(now.duration_ms / 1000)}<${Waterfall} row=${now} scale=${scale} /></td>
      <td class="buttons">
        ${flight && html`<button type="button" aria-expanded=${isOpen} aria-label=${`Time of request under way ${flight.id}`} onClick=${open}>Time</button>`}
        ${flight && !hasEnded &&
        html`<button type="button" aria-label=${`Cancel request ${flight.id}`}
          onClick=${() => command("POST", `/api/inflight/${encodeURIComponent(flight.id)}/cancel`)}>Cancel</button>`}
      </td>
    </tr>
    ${isOpen && flight && html`<tr class="details"><td colspan=${COLUMNS}><${Details} row=${{ ...flight, ...now }} swap=${flight.swap_id} /></td></tr>`}`;
}

/** Where the time went, and why the request waited. @param {{row: any, swap?: string}} props */
function Details({ row, swap }) {
  const { wait } = row;
  const facts = [row.request_id && `X-Request-ID ${row.request_id}`, row.metadata?.session && `session ${row.metadata.session}`, swap && `swap ${swap}`];
  return html`
    <${Phases} row=${row} />
    ${wait?.evicted?.length > 0 && html`<p>Evicted for it: ${wait.evicted.join(", ")}.</p>`}
    ${wait?.resident?.length > 0 && html`<p>Resident when it came: ${wait.resident.join(", ")}.</p>`}
    ${wait?.reasons?.length > 0 &&
    html`
      <ul class="plain">
        ${wait.reasons.map(
          (/** @type {any} */ reason, /** @type {number} */ index) => html`<li key=${index}>after ${seconds(reason.after_ms / 1000)}: ${reason.why}</li>`,
        )}
      </ul>`}
    <p class="quiet">${facts.filter(Boolean).join(" · ")}</p>`;
}
