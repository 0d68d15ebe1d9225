// The starts of a model: when, why, how long each took, how it ended, and its transitions; and the log of one of them.

import { html, useEffect, useState } from "../vendor/preact.js";
import { clockTime, seconds, words } from "../format.js";
import { Log } from "../log.js";
import { Limited } from "../parts.js";
import { SwapDialog } from "../timeline/swap.js";

/** @typedef {import("./types.js").Start} Start */

/** Value of the list of logs: the newest start, whichever that is. */
export const NEWEST = "";
const ALL = "all";

/** Cause of a start in words. @type {Record<string, string>} */
const CAUSES = {
  request: "a request", load: "a command", preload: "the preload at startup", autostart: "its configuration", idle_load: "a time without requests",
  adoption: "an earlier proxy had left it running", failure: "a failure before", reload: "a changed configuration",
};

/** Return how a start went and how it ended. @param {Start} start */
function fate(start) {
  const ready = start.is_adopted ? "was running" : start.ready_s === null ? "" : `ready after ${seconds(start.ready_s)}`;
  const ran = start.until === null || start.ready_s === null ? "" : `ran ${seconds(Math.max(start.until - start.at - start.ready_s, 0))}`;
  /** @type {Record<string, string>} */
  const ends = {
    starting: "is starting", running: "is running", stopping: `is stopping: ${start.why}`, stopped: `stopped: ${start.why}`,
    failed: `failed: ${start.why}`, lost: "ended with the proxy", left: "left running for the next proxy",
  };
  return [ready, ran, ends[start.outcome]].filter(Boolean).join(", ");
}

/**
 * Show the starts, the newest first and unfolded.
 *
 * @param {{starts: Start[], problem: string, isKnown: boolean, choose: (start: string) => void}} props
 */
export function Starts({ starts, problem, isKnown, choose }) {
  const [swap, setSwap] = useState("");
  return html`
    <section class="card" aria-labelledby="history-title">
      <h2 id="history-title">Starts</h2>
      <div id="history">
        <${Limited} items=${starts} step=${10}>
          ${(/** @type {Start[]} */ shown) => shown.map((start, index) => html`
            <${Entry} key=${start.id} start=${start} isNewest=${index === 0} show=${setSwap} choose=${choose} />`)}
        <//>
      </div>
      <p id="history-note" class="quiet">${problem || (isKnown && !starts.length ? "It was not started yet." : "")}</p>
      ${swap && html`<${SwapDialog} key=${swap} id=${swap} close=${() => setSwap("")} />`}
    </section>`;
}

/** @param {{start: Start, isNewest: boolean, show: (swap: string) => void, choose: (start: string) => void}} props */
function Entry({ start, isNewest, show, choose }) {
  const [isOpen, setOpen] = useState(isNewest);
  useEffect(() => setOpen(isNewest), [isNewest]); // the one before folds when a new one begins
  const kind = start.outcome === "failed" || start.outcome === "lost" ? "bad" : "";
  return html`
    <details class="start-of" data-outcome=${start.outcome} open=${isOpen} onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}>
      <summary><span class="time">${clockTime(start.at * 1000)}</span> <span class=${kind}>${fate(start)}</span></summary>
      ${isOpen && html`
        <div class="start-head">
        <span class="quiet">Start ${start.number}. Cause: ${CAUSES[start.swap_cause] ?? words(start.swap_cause || start.cause)}${start.request_id && html` <code>${start.request_id}</code>`}</span>
          ${start.swap_id && html`<button type="button" aria-label=${`Swap of start ${start.number}`} onClick=${() => show(start.swap_id)}>Swap</button>`}
          ${start.log_bytes !== null && html`<button type="button" aria-label=${`Log of start ${start.number}`} onClick=${() => choose(start.id)}>Log</button>`}
        </div>
        <${Transitions} start=${start} />`}
    </details>`;
}

/** @param {{start: Start}} props */
function Transitions({ start }) {
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${`Transitions of start ${start.number}`}>
      <table class="transitions">
        <thead><tr><th>When</th><th>From</th><th>To</th><th>Event</th><th>Why</th><th class="number">Lasted</th></tr></thead>
        <tbody>
          ${start.transitions.map((row, index) => html`
            <tr key=${row.id}>
              <td class="time">${clockTime(row.at * 1000)}</td>
              <td>${words(row.source)}</td><td>${words(row.target)}</td><td>${words(row.event)}</td>
              <td class="why">
                <span>${row.cause}</span>
                ${row.hooks.map((hook, place) => html`<${Hook} key=${place} hook=${hook} />`)}
                ${index === 0 && start.left_out > 0 && html`<small>${start.left_out} transitions after this one are not shown.</small>`}
              </td>
              <td class="number">${index > 0 && seconds(row.seconds)}</td>
            </tr>`)}
        </tbody>
      </table>
    </div>`;
}

/** @param {{hook: import("./types.js").Hook}} props */
function Hook({ hook }) {
  return html`
    <small>${words(hook.point)}: <span class=${hook.outcome === "ok" ? "" : "bad"}>${hook.outcome}</span> after ${seconds(hook.seconds)}, ${hook.action}${hook.detail && ` (${hook.detail})`}</small>
    ${hook.output && html`<pre class="log hook-output" tabindex="0" aria-label=${`Output of ${hook.point}`}>${hook.output}</pre>`}`;
}

/**
 * Show the log of one start, or of all.
 *
 * @param {{id: string, starts: Start[] | null, chosen: string, choose: (start: string) => void}} props `starts` is null
 *   until they are known.
 */
export function StartLog({ id, starts, chosen, choose }) {
  const kept = (starts ?? []).filter((start) => start.log_bytes !== null);
  const newest = kept[0];
  const start = chosen === ALL ? undefined : kept.find((each) => each.id === chosen) ?? newest;
  const all = `/logs/stream/${encodeURIComponent(id)}`;
  const isEndless = !start || start === newest;
  const path = start ? `${all}?start=${encodeURIComponent(start.id)}${isEndless ? "" : "&no-follow"}` : all;
  const isCut = start && start.kept_log_bytes !== null && start.log_bytes !== null && start.kept_log_bytes < start.log_bytes;
  return html`
    <section class="card" aria-labelledby="model-log-title">
      <div class="title">
        <h2 id="model-log-title">Log</h2>
        ${kept.length > 0 && html`
          <label>of <select id="log-of" value=${start ? (chosen === NEWEST ? NEWEST : start.id) : ALL} onChange=${(/** @type {any} */ event) => choose(event.target.value)}>
            <option value=${NEWEST}>the newest start</option>
            ${kept.map((each) => html`<option key=${each.id} value=${each.id}>start ${each.number}, ${clockTime(each.at * 1000)}</option>`)}
            <option value=${ALL}>all starts</option>
          </select></label>`}
      </div>
      ${isCut && html`<p class="quiet" id="log-cut">Its beginning is no longer kept.</p>`}
      ${starts && html`<${Log} id="model-log" label="Log of the model" path=${path} isEndless=${isEndless} />`}
    </section>`;
}
