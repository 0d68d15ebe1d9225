// Requests in one table: those under way and in the queue, then the finished ones.

import { html, useState } from "../vendor/preact.js";
import { complain, getJson } from "../api.js";
import { Capture, copy, curlOf } from "../capture.js";
import { count } from "../format.js";
import { Limited, useJson, useSoon, useTick } from "../parts.js";
import { asFinished, isWanted, liveRows } from "../requests/live.js";
import { Filters, filters } from "../requests/filters.js";
import { RequestRow } from "../requests/row.js";
import { keyOfRow, queue, useEvents } from "../store.js";

const PAGE_ROWS = 25;

/** @typedef {import("../requests/live.js").LiveRow} LiveRow */

export default function Requests() {
  const [version, setVersion] = useState(0);
  const [page, setPage] = useState(1);
  const [capture, setCapture] = useState(/** @type {any} */ (null));
  const [opened, setOpened] = useState("");
  const { given, wanted, hasLive, hasFinished } = filters();
  const again = () => setVersion((old) => old + 1);
  const soon = useSoon(again, 200);
  const later = useSoon(again, 3000); // a search through a million requests takes 1.4 s
  useEvents("activity", given.text ? later : soon, [given.text]);
  const query = new URLSearchParams([...wanted, ["limit", String(PAGE_ROWS)], ["page", String(page)]]);
  const found = useJson(hasFinished ? `/api/metrics/activity?${query}` : "", version);
  const stats = useJson(`/api/metrics/stats${given.model && `?${new URLSearchParams({ model: given.model })}`}`, version);
  /** @type {any[]} */
  const rows = (hasFinished && found.value?.data) || [];
  const live = hasLive && page === 1 ? liveRows(rows).filter((row) => isWanted(row, given)) : [];
  useTick(500, live.length > 0);
  const pages = Math.max(1, found.value?.total_pages ?? 1);
  const nothing = live.length ? "" : given.model || given.status || given.text || given.span ? "No request matches." : "None yet.";
  const note = found.problem || found.value?.problem || (hasFinished && !found.value ? "Loading…" : rows.length ? "" : nothing);
  return html`
    <section id="page-requests" aria-labelledby="requests-title">
      <div class="title">
        <h1 id="requests-title">Requests</h1>
        <p id="totals" class="quiet">${stats.value && totals(stats.value)}</p>
      </div>
      <div class="card">
        <${Filters} given=${given} wanted=${wanted} canSave=${hasFinished} changed=${() => setPage(1)} />
        <${Swaps} />
        <${Limited} items=${live}>
          ${(/** @type {LiveRow[]} */ shown) => html`
            <${Table} live=${shown} rows=${rows} opened=${opened} setOpened=${setOpened} setCapture=${setCapture} />`}
        <//>
        <p id="requests-note" class="quiet" role="status">${note}</p>
        <div class="pager">
          <button id="newer" type="button" disabled=${page <= 1} onClick=${() => setPage(page - 1)}>Previous</button>
          <span id="page-number" class="quiet">page ${page} of ${pages}</span>
          <button id="older" type="button" disabled=${page >= pages} onClick=${() => setPage(page + 1)}>Next</button>
        </div>
      </div>
      ${capture && html`<${Capture} id=${capture.id} found=${capture.value} close=${() => setCapture(null)} />`}
    </section>`;
}

/** Swaps that requests wait for. */
function Swaps() {
  const { swaps } = queue.value;
  return html`
    <ul id="swaps" class="plain">
      ${swaps.map(
        ({ target, evicting }) => html`
          <li key=${target}>${target} is being loaded${evicting.length > 0 && `; ${evicting.join(", ")} must stop first`}</li>`,
      )}
    </ul>`;
}

/** @param {{live: LiveRow[], rows: any[], opened: string, setOpened: (key: string) => void, setCapture: (value: any) => void}} props */
function Table({ live, rows, opened, setOpened, setCapture }) {
  /** @param {number} id @param {(value: any) => void} use */
  const withCapture = (id, use) => getJson(`/api/captures/${id}`).then(use).catch(complain);
  const lasted = live.map((row) => (row.flight ? asFinished(row.flight).duration_ms : 0));
  const scale = Math.max(...rows.map((row) => row.duration_ms), ...lasted, 1);
  /** @param {string} key */
  const opening = (key) => ({ isOpen: opened === key, open: () => setOpened(opened === key ? "" : key) });
  const all = [
    ...live.map((row) => html`<${RequestRow} key=${row.key} live=${row} scale=${scale} ...${opening(row.key)} />`),
    ...rows.map((row) => html`
      <${RequestRow} key=${keyOfRow(row.id)} done=${row} scale=${scale} ...${opening(keyOfRow(row.id))}
        show=${() => withCapture(row.id, (value) => setCapture({ id: row.id, value }))}
        curl=${() => withCapture(row.id, (value) => copy(curlOf(value)))} />`),
  ]; // one list, in which a request that ends keeps its row
  return html`
    <div class="scroll">
      <table id="requests">
        <thead><tr><th>When</th><th>Model</th><th>Request</th><th>Status</th><th class="number">Prompt</th>
          <th class="number">Generated</th><th class="number">Waited</th><th class="number">Took</th><th><span class="unseen">Actions</span></th></tr></thead>
        <tbody>
          ${all}
        </tbody>
      </table>
    </div>`;
}

/** @param {any} stats */
function totals(stats) {
  return [
    `${count(stats.total_requests)} requests`, `${count(stats.total_input_tokens)} prompt`,
    `${count(stats.total_cache_tokens)} cached`, `${count(stats.total_output_tokens)} generated tokens`,
  ].join(" · ");
}
