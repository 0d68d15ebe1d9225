// One swap: its transitions, hooks with their output, and the requests that waited for it.

import { html, useEffect, useRef } from "../vendor/preact.js";
import { clockTime, seconds, words } from "../format.js";
import { useJson } from "../parts.js";
import { Phases } from "../waterfall.js";

/** @param {{id: string, close: () => void}} props */
export function SwapDialog({ id, close }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const { value, problem } = useJson(`/api/swaps/${encodeURIComponent(id)}`);
  useEffect(() => dialog.current?.showModal(), []);
  return html`
    <dialog id="swap-dialog" ref=${dialog} aria-labelledby="swap-title" onClose=${close}>
      <div class="title">
        <h2 id="swap-title">Swap${value ? `: ${words(value.cause)}` : ""}</h2>
        <button type="button" onClick=${() => dialog.current?.close()}>Close</button>
      </div>
      ${problem && html`<p class="notice" role="alert">${problem}</p>`}
      ${!value && !problem && html`<p class="quiet">Loading…</p>`}
      ${value && html`<${Details} swap=${value} />`}
    </dialog>`;
}

/** @param {{swap: any}} props */
function Details({ swap }) {
  const hooks = swap.transitions.flatMap((/** @type {any} */ row) => row.hooks.map((/** @type {any} */ hook) => ({ ...hook, model: row.service })));
  return html`
    <h3>Hooks</h3>
    ${!hooks.length && html`<p class="quiet">No hook ran.</p>`}
    <ul id="swap-hooks" class="plain">
      ${hooks.map((/** @type {any} */ hook, /** @type {number} */ index) => html`
        <li key=${index}><strong>${hook.point}</strong> of ${hook.model}: ${hook.action} <span class=${hook.outcome === "ok" ? "good" : "bad"}>${hook.outcome}</span> after ${seconds(hook.seconds)}
          ${hook.detail && html`<small>${hook.detail}</small>`}
          ${hook.output && html`<pre class="log hook-output" tabindex="0">${hook.output}</pre>`}</li>`)}
    </ul>
    <h3>Requests that waited for it</h3>
    ${!swap.requests.length && html`<p class="quiet">None.</p>`}
    <ul id="swap-requests" class="plain">
      ${swap.requests.map((/** @type {any} */ row) => html`
        <li key=${row.id}>${row.model}, ${row.req_path}: ${row.resp_status_code}, waited ${seconds(row.wait_ms / 1000)}<${Phases} row=${row} />
          ${(row.wait?.reasons ?? []).map((/** @type {any} */ reason, /** @type {number} */ index) => html`<small key=${index}>after ${seconds(reason.after_ms / 1000)}: ${reason.why}</small>`)}
          ${row.wait?.resident.length > 0 && html`<small>ran when it came: ${row.wait.resident.join(", ")}</small>`}</li>`)}
    </ul>
    <h3>Transitions</h3>
    <div class="scroll"><table id="swap-transitions">
      <thead><tr><th>When</th><th>Model</th><th>To</th><th>Why</th><th class="number">After</th></tr></thead>
      <tbody>${swap.transitions.map((/** @type {any} */ row) => html`
        <tr key=${row.id}><td class="time">${clockTime(row.at * 1000)}</td><td>${row.service}</td><td>${words(row.target)}</td>
          <td class="why">${words(row.event)}${row.cause && html`<small>${row.cause}</small>`}</td><td class="number">${seconds(row.seconds)}</td></tr>`)}</tbody>
    </table></div>`;
}
