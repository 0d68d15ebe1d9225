// Requests: those under way and in the queue, then the finished ones.

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { command, complain, getJson } from "../api.js";
import { byName, clockTime, count, seconds, speed } from "../format.js";
import { Limited, useJson, useSoon, useTick } from "../parts.js";
import { clock, flights, models, queue, useEvents } from "../store.js";

const PAGE_ROWS = 25;

/** @typedef {import("../types.js").Flight} Flight */

export default function Requests() {
  const [version, setVersion] = useState(0);
  const soon = useSoon(() => setVersion((old) => old + 1), 200);
  useEvents("activity", soon);
  useTick(1000, flights.value.size > 0 || queue.value.queue.length > 0);
  return html`
    <section id="page-requests" aria-labelledby="requests-title">
      <${UnderWay} />
      <${Queue} />
      <${Finished} version=${version} />
    </section>`;
}

function UnderWay() {
  const rows = [...flights.value.values()];
  return html`
    <section class="card" aria-labelledby="flights-title">
      <h2 id="flights-title">Under way</h2>
      ${!rows.length && html`<p id="no-flights" class="quiet">None.</p>`}
      ${rows.length > 0 &&
      html`
        <${Limited} items=${rows}>
          ${(/** @type {Flight[]} */ shown) => html`
            <div class="scroll">
              <table id="flights">
                <thead><tr><th>Model</th><th>Request</th><th>From</th><th>State</th><th class="number">For</th>
                  <th class="number">Bytes</th><th><span class="unseen">Actions</span></th></tr></thead>
                <tbody>${shown.map((row) => html`<${FlightRow} key=${row.id} row=${row} />`)}</tbody>
              </table>
            </div>`}
        <//>`}
    </section>`;
}

/** @param {{row: Flight}} props */
function FlightRow({ row }) {
  const status = row.resp_status ? `responding ${row.resp_status}` : "running";
  return html`
    <tr>
      <td>${row.model}</td><td>${row.method} ${row.req_path}</td><td>${row.remote_ip}</td>
      <td>${row.is_waiting ? "waiting" : status}</td>
      <td class="number">${seconds((performance.now() - row.began) / 1000)}</td>
      <td class="number">${count(row.resp_bytes)}</td>
      <td><button type="button" aria-label=${`Cancel request ${row.id}`}
        onClick=${() => command("POST", `/api/inflight/${encodeURIComponent(row.id)}/cancel`)}>Cancel</button></td>
    </tr>`;
}

function Queue() {
  const { queue: rows, swaps } = queue.value;
  /** @param {any} row */
  const waited = (row) => (clock.value === null ? "" : seconds(Math.max(0, Date.now() / 1000 - clock.value - row.since)));
  return html`
    <section class="card" aria-labelledby="queue-title">
      <h2 id="queue-title">Queue</h2>
      ${!rows.length && html`<p id="no-queue" class="quiet">No request waits.</p>`}
      ${rows.length > 0 &&
      html`
        <${Limited} items=${rows}>
          ${(/** @type {any[]} */ shown) => html`
            <div class="scroll">
              <table id="queue">
                <thead><tr><th class="number">Place</th><th>Model</th><th class="number">Priority</th>
                  <th class="number">Waits for</th><th>Why</th></tr></thead>
                <tbody>
                  ${shown.map(
                    (row) => html`
                      <tr key=${row.position}>
                        <td class="number">${row.position}</td><td>${row.model}</td><td class="number">${row.priority}</td>
                        <td class="number">${waited(row)}</td><td>${row.why}</td>
                      </tr>`,
                  )}
                </tbody>
              </table>
            </div>`}
        <//>`}
      <ul id="swaps" class="plain">
        ${swaps.map(
          ({ target, evicting }) => html`
            <li key=${target}>${target} is being loaded${evicting.length > 0 && `; ${evicting.join(", ")} must stop first`}</li>`,
        )}
      </ul>
    </section>`;
}

/** @param {{version: number}} props */
function Finished({ version }) {
  const [page, setPage] = useState(1);
  const [model, setModel] = useState("");
  const [capture, setCapture] = useState(/** @type {any} */ (null));
  const query = new URLSearchParams({ limit: String(PAGE_ROWS), page: String(page), ...(model && { model }) });
  const found = useJson(`/api/metrics/activity?${query}`, version);
  const stats = useJson(`/api/metrics/stats${model && `?${new URLSearchParams({ model })}`}`, version);
  const pages = Math.max(1, found.value?.total_pages ?? 1);
  const own = [...(models.value?.values() ?? [])].filter((row) => !row.peerID).map((row) => row.id).sort(byName);
  /** @param {number} id */
  const show = (id) => getJson(`/api/captures/${id}`).then((value) => setCapture({ id, value }), complain);
  /** @param {any} event */
  const choose = (event) => {
    setModel(event.target.value);
    setPage(1);
  };
  const note = found.problem || (found.value?.problem ?? (found.value && !found.value.total ? "None yet." : ""));
  return html`
    <section class="card" aria-labelledby="done-title">
      <div class="title">
        <h2 id="done-title">Finished</h2>
        <p id="totals" class="quiet">${stats.value && totals(stats.value)}</p>
        <label>Model <select id="done-model" value=${model} onChange=${choose}>
          <option value="">all</option>
          ${own.map((id) => html`<option key=${id} value=${id}>${id}</option>`)}
        </select></label>
      </div>
      <div class="scroll">
        <table id="done">
          <thead><tr><th>When</th><th>Model</th><th>Request</th><th>Status</th><th class="number">Prompt</th>
            <th class="number">Cached</th><th class="number">Generated</th><th class="number">Prompt/s</th>
            <th class="number">Tokens/s</th><th class="number">Waited</th><th class="number">Took</th>
            <th><span class="unseen">Actions</span></th></tr></thead>
          <tbody>${(found.value?.data ?? []).map((/** @type {any} */ row) => html`<${DoneRow} key=${row.id} row=${row} show=${show} />`)}</tbody>
        </table>
      </div>
      <p id="done-note" class="quiet">${note}</p>
      <div class="pager">
        <button id="newer" type="button" disabled=${page <= 1} onClick=${() => setPage(page - 1)}>Newer</button>
        <span id="page-number" class="quiet">page ${page} of ${pages}</span>
        <button id="older" type="button" disabled=${page >= pages} onClick=${() => setPage(page + 1)}>Older</button>
      </div>
      ${capture && html`<${Capture} id=${capture.id} found=${capture.value} close=${() => setCapture(null)} />`}
    </section>`;
}

/** @param {any} stats */
function totals(stats) {
  return [
    `${count(stats.total_requests)} requests`, `${count(stats.total_input_tokens)} prompt`,
    `${count(stats.total_cache_tokens)} cached`, `${count(stats.total_output_tokens)} generated tokens`,
  ].join(" · ");
}

/** @param {{row: any, show: (id: number) => void}} props */
function DoneRow({ row, show }) {
  const { tokens } = row;
  const isBad = row.resp_status_code >= 400 || row.error_msg;
  return html`
    <tr>
      <td class="time">${clockTime(Date.parse(row.timestamp))}</td><td>${row.model}</td><td>${row.req_path}</td>
      <td class="why"><span class=${isBad ? "bad" : "good"}>${row.resp_status_code}</span>
        ${row.error_msg && html`<small>${row.error_msg}</small>`}</td>
      <td class="number">${count(tokens.input_tokens)}</td><td class="number">${count(tokens.cache_tokens)}</td>
      <td class="number">${count(tokens.output_tokens)}</td><td class="number">${speed(tokens.prompt_per_second)}</td>
      <td class="number">${speed(tokens.tokens_per_second)}</td><td class="number">${seconds((row.wait_ms ?? 0) / 1000)}</td>
      <td class="number">${seconds(row.duration_ms / 1000)}</td>
      <td>${row.has_capture && html`<button type="button" aria-label=${`Show request ${row.id}`} onClick=${() => show(row.id)}>Show</button>`}</td>
    </tr>`;
}

/** A captured request and its response. @param {{id: number, found: any, close: () => void}} props */
function Capture({ id, found, close }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => dialog.current?.showModal(), []);
  const parts = [
    found.req_path, headerLines(found.req_headers), bodyText(found.req_body), "────",
    headerLines(found.resp_headers), bodyText(found.resp_body),
  ];
  return html`
    <dialog id="capture-dialog" ref=${dialog} aria-labelledby="capture-title" onClose=${close}>
      <div class="title">
        <h2 id="capture-title">Request ${id}</h2>
        <button type="button" onClick=${() => dialog.current?.close()}>Close</button>
      </div>
      <pre id="capture" class="log" tabindex="0">${parts.filter(Boolean).join("\n\n")}</pre>
    </dialog>`;
}

/** @param {Record<string, string> | null} headers */
const headerLines = (headers) => Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`).join("\n");

/** Return a captured body as text: JSON on many lines, everything else as it is. @param {string} packed */
function bodyText(packed) {
  if (!packed) return "";
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const text = new TextDecoder().decode(bytes);
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
