// Requests: those under way and in the queue, then the finished ones.

import { html, useState } from "../vendor/preact.js";
import { command, complain, getJson } from "../api.js";
import { Capture, copy, curlOf } from "../capture.js";
import { save } from "../export.js";
import { byName, clockTime, count, seconds, speed } from "../format.js";
import { Limited, useJson, useSoon, useTick } from "../parts.js";
import { address, go, route } from "../router.js";
import { clock, flights, models, queue, useEvents } from "../store.js";
import { Phases, Waterfall } from "../waterfall.js";

const PAGE_ROWS = 25;
/** Choices of how far back to look: seconds -> name. */
const SPANS = { "": "any time", 900: "last 15 minutes", 3600: "last hour", 86400: "last day", 604800: "last 7 days" };
const ORDERS = { id: "newest first", duration: "longest first", waited: "longest wait first", resp_status_code: "failed first" };

/** @typedef {import("../types.js").Flight} Flight */
/** @typedef {{key: string, flight: Flight | null, place: any}} Row A request under way, its place in the queue, or both. */

export default function Requests() {
  const [version, setVersion] = useState(0);
  const soon = useSoon(() => setVersion((old) => old + 1), 200);
  useEvents("activity", soon);
  useTick(1000, flights.value.size > 0 || queue.value.queue.length > 0);
  return html`
    <section id="page-requests" aria-labelledby="requests-title">
      <h1 id="requests-title">Requests</h1>
      <${UnderWay} />
      <${Finished} version=${version} />
    </section>`;
}

/** Return the requests under way, those in the queue in its order behind the others. @returns {Row[]} */
function rowsUnderWay() {
  const all = [...flights.value.values()].sort((a, b) => a.began - b.began);
  /** @type {Map<string, Flight[]>} */
  const waiting = new Map();
  for (const flight of all.filter((each) => each.is_waiting)) {
    waiting.set(flight.model, [...(waiting.get(flight.model) ?? []), flight]);
  }
  /** @type {Row[]} */
  const queued = queue.value.queue.map((place) => {
    const flight = waiting.get(place.model)?.shift() ?? null;
    return { key: flight?.id ?? `place ${place.position}`, flight, place };
  });
  const placed = new Set(queued.map((row) => row.flight?.id));
  return [...all.filter((flight) => !placed.has(flight.id)).map((flight) => ({ key: flight.id, flight, place: null })), ...queued];
}

function UnderWay() {
  const rows = rowsUnderWay();
  const { swaps } = queue.value;
  return html`
    <section class="card" aria-labelledby="flights-title">
      <h2 id="flights-title">Under way and in the queue</h2>
      ${!rows.length && html`<p id="no-flights" class="quiet">None.</p>`}
      ${rows.length > 0 &&
      html`
        <${Limited} items=${rows}>
          ${(/** @type {Row[]} */ shown) => html`
            <div class="scroll">
              <table id="flights">
                <thead><tr><th>Model</th><th>Request</th><th>From</th><th>State</th><th class="number">For</th>
                  <th class="number">Bytes</th><th><span class="unseen">Actions</span></th></tr></thead>
                <tbody>${shown.map((row) => html`<${FlightRow} key=${row.key} row=${row} />`)}</tbody>
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

/** @param {{row: Row}} props */
function FlightRow({ row: { flight, place } }) {
  const status = flight?.resp_status ? `responding ${flight.resp_status}` : "running";
  const since = place && clock.value !== null ? Math.max(0, Date.now() / 1000 - clock.value - place.since) : 0;
  const lasted = flight ? (performance.now() - flight.began) / 1000 : since;
  return html`
    <tr class=${place ? "queued" : ""}>
      <td>${flight?.model ?? place.model}</td>
      <td>${flight && `${flight.method} ${flight.req_path}`}</td><td>${flight?.remote_ip}</td>
      <td class="why">${place ? `place ${place.position} in the queue` : flight?.is_waiting ? "waiting" : status}
        ${place && html`<small>${place.why}${place.priority ? ` (priority ${place.priority})` : ""}</small>`}</td>
      <td class="number">${seconds(lasted)}</td>
      <td class="number">${flight && count(flight.resp_bytes)}</td>
      <td>${flight &&
      html`<button type="button" aria-label=${`Cancel request ${flight.id}`}
        onClick=${() => command("POST", `/api/inflight/${encodeURIComponent(flight.id)}/cancel`)}>Cancel</button>`}</td>
    </tr>`;
}

/** Return the query of the finished requests that the address asks for. */
function filters() {
  const { query } = route.value;
  const given = { model: query.get("of") ?? "", span: query.get("span") ?? "", sort: query.get("sort") ?? "id" };
  const wanted = new URLSearchParams();
  if (given.model) wanted.set("model", given.model);
  if (given.span) wanted.set("start", new Date(Math.floor(Date.now() / 60_000) * 60_000 - Number(given.span) * 1000).toISOString());
  if (given.sort !== "id") wanted.set("sort", given.sort);
  return { given, wanted };
}

/** @param {{version: number}} props */
function Finished({ version }) {
  const [page, setPage] = useState(1);
  const [capture, setCapture] = useState(/** @type {any} */ (null));
  const [opened, setOpened] = useState(/** @type {number | null} */ (null));
  const { given, wanted } = filters();
  const query = new URLSearchParams({ limit: String(PAGE_ROWS), page: String(page), ...Object.fromEntries(wanted) });
  const found = useJson(`/api/metrics/activity?${query}`, version);
  const stats = useJson(`/api/metrics/stats${given.model && `?${new URLSearchParams({ model: given.model })}`}`, version);
  /** @type {any[]} */
  const rows = found.value?.data ?? [];
  const pages = Math.max(1, found.value?.total_pages ?? 1);
  const scale = Math.max(...rows.map((row) => row.duration_ms), 1);
  /** @param {number} id @param {(value: any) => void} use */
  const withCapture = (id, use) => getJson(`/api/captures/${id}`).then(use).catch(complain);
  const note = found.problem || (found.value?.problem ?? (found.value && !found.value.total ? "None yet." : ""));
  return html`
    <section class="card" aria-labelledby="done-title">
      <div class="title">
        <h2 id="done-title">Finished</h2>
        <p id="totals" class="quiet">${stats.value && totals(stats.value)}</p>
      </div>
      <${Filters} given=${given} wanted=${wanted} changed=${() => setPage(1)} />
      <div class="scroll">
        <table id="done">
          <thead><tr><th>When</th><th>Model</th><th>Request</th><th>Status</th><th class="number">Prompt</th>
            <th class="number">Cached</th><th class="number">Generated</th><th class="number">Prompt/s</th>
            <th class="number">Tokens/s</th><th class="number">Waited</th><th class="number">Took</th>
            <th><span class="unseen">Actions</span></th></tr></thead>
          <tbody>
            ${rows.map(
              (row) => html`
                <${DoneRow} key=${row.id} row=${row} scale=${scale} isOpen=${opened === row.id}
                  open=${() => setOpened(opened === row.id ? null : row.id)}
                  show=${() => withCapture(row.id, (value) => setCapture({ id: row.id, value }))}
                  curl=${() => withCapture(row.id, (value) => copy(curlOf(value)))} />`,
            )}
          </tbody>
        </table>
      </div>
      <p id="done-note" class="quiet">${note}</p>
      <div class="pager">
        <button id="newer" type="button" disabled=${page <= 1} onClick=${() => setPage(page - 1)}>Previous</button>
        <span id="page-number" class="quiet">page ${page} of ${pages}</span>
        <button id="older" type="button" disabled=${page >= pages} onClick=${() => setPage(page + 1)}>Next</button>
      </div>
      ${capture && html`<${Capture} id=${capture.id} found=${capture.value} close=${() => setCapture(null)} />`}
    </section>`;
}

/** @param {{given: {model: string, span: string, sort: string}, wanted: URLSearchParams, changed: () => void}} props */
function Filters({ given, wanted, changed }) {
  const own = [...(models.value?.values() ?? [])].filter((row) => !row.peerID).map((row) => row.id).sort(byName);
  /** @param {string} name @returns {(event: any) => void} */
  const set = (name) => (event) => {
    const query = Object.fromEntries(route.value.query);
    delete query[name];
    go(address("requests", { ...query, ...(event.target.value && { [name]: event.target.value }) }), { replace: true });
    changed();
  };
  return html`
    <div class="filters">
      <label>Model <select id="done-model" value=${given.model} onChange=${set("of")}>
        <option value="">all</option>
        ${own.map((id) => html`<option key=${id} value=${id}>${id}</option>`)}
      </select></label>
      <label>Since <select id="done-span" value=${given.span} onChange=${set("span")}>
        ${Object.entries(SPANS).map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}
      </select></label>
      <label>Order <select id="done-sort" value=${given.sort} onChange=${set("sort")}>
        ${Object.entries(ORDERS).map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}
      </select></label>
      <span class="buttons">
        <button id="save-csv" type="button" onClick=${() => save(wanted, "csv").catch(complain)}>CSV</button>
        <button id="save-json" type="button" onClick=${() => save(wanted, "json").catch(complain)}>JSON</button>
      </span>
    </div>`;
}

/** @param {any} stats */
function totals(stats) {
  return [
    `${count(stats.total_requests)} requests`, `${count(stats.total_input_tokens)} prompt`,
    `${count(stats.total_cache_tokens)} cached`, `${count(stats.total_output_tokens)} generated tokens`,
  ].join(" · ");
}

/** @param {{row: any, scale: number, isOpen: boolean, open: () => void, show: () => void, curl: () => void}} props */
function DoneRow({ row, scale, isOpen, open, show, curl }) {
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
      <td class="number">${seconds(row.duration_ms / 1000)}<${Waterfall} row=${row} scale=${scale} /></td>
      <td class="buttons">
        <button type="button" aria-expanded=${isOpen} aria-label=${`Time of request ${row.id}`} onClick=${open}>Time</button>
        ${row.has_capture &&
        html`
          <button type="button" aria-label=${`Show request ${row.id}`} onClick=${show}>Show</button>
          <button type="button" aria-label=${`Copy request ${row.id} as curl`} onClick=${curl}>curl</button>`}
      </td>
    </tr>
    ${isOpen && html`<tr class="details"><td colspan="12"><${Details} row=${row} /></td></tr>`}`;
}

/** Where the time went, and why the request waited. @param {{row: any}} props */
function Details({ row }) {
  const wait = row.wait;
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
    <p class="quiet">${[row.request_id && `X-Request-ID ${row.request_id}`, row.swap_id && `swap ${row.swap_id}`].filter(Boolean).join(" · ")}</p>`;
}
