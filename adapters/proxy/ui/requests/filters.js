// Filters of requests: part of the address, so that a view can be kept and sent.

import { html, useEffect, useState } from "../vendor/preact.js";
import { complain } from "../api.js";
import { save } from "../export.js";
import { byName } from "../format.js";
import { useSoon } from "../parts.js";
import { address, go, route } from "../router.js";
import { models } from "../store.js";

/** Choices of how far back to look: seconds -> name. */
const SPANS = { "": "any time", 900: "last 15 minutes", 3600: "last hour", 86400: "last day", 604800: "last 7 days" };
const ORDERS = { id: "newest first", duration: "longest first", waited: "longest wait first", resp_status_code: "failed first" };
/** Choices of the status -> name, and statuses of finished requests; none for those under way. @type {Record<string, {name: string, statuses?: string[]}>} */
const STATUSES = {
  "": { name: "any", statuses: [] },
  waiting: { name: "waiting" },
  running: { name: "running" },
  succeeded: { name: "succeeded", statuses: ["2xx", "3xx"] },
  failed: { name: "failed", statuses: ["400-498", "5xx"] },
  canceled: { name: "canceled", statuses: ["499"] },
};

/** @typedef {{model: string, span: string, sort: string, status: string, text: string}} Given */

/**
 * Return the filters of the address.
 *
 * @returns {{given: Given, wanted: URLSearchParams, hasLive: boolean, hasFinished: boolean}}
 *   `wanted` is the query of finished requests; whether requests under way, and finished ones, are shown.
 */
export function filters() {
  const { query } = route.value;
  /** @param {string} name */
  const of = (name) => query.get(name) ?? "";
  const given = { model: of("of"), span: of("span"), sort: of("sort") || "id", status: STATUSES[of("status")] ? of("status") : "", text: of("text") };
  const wanted = new URLSearchParams();
  const { statuses } = STATUSES[given.status];
  if (given.model) wanted.set("model", given.model);
  if (given.text) wanted.set("text", given.text);
  statuses?.forEach((status) => wanted.append("status", status));
  if (Number(given.span) > 0) wanted.set("start", new Date(Math.floor(Date.now() / 60_000) * 60_000 - Number(given.span) * 1000).toISOString());
  if (given.sort !== "id") wanted.set("sort", given.sort);
  return { given, wanted, hasLive: !statuses?.length, hasFinished: statuses !== undefined };
}

/** @param {string} name @param {string} value */
function set(name, value) {
  const query = Object.fromEntries(route.value.query);
  delete query[name];
  go(address("requests", { ...query, ...(value && { [name]: value }) }), { replace: true });
}

/** @param {{given: Given, wanted: URLSearchParams, canSave: boolean, changed: () => void}} props */
export function Filters({ given, wanted, canSave, changed }) {
  const own = [...(models.value?.values() ?? [])].filter((row) => !row.peerID).map((row) => row.id).sort(byName);
  const names = given.model && !own.includes(given.model) ? [given.model, ...own] : own;
  /** @param {string} name @returns {(event: any) => void} */
  const choose = (name) => (event) => {
    set(name, event.target.value);
    changed();
  };
  /** @param {string} id @param {string} title @param {string} value @param {string} name @param {[string, string][]} choices */
  const choice = (id, title, value, name, choices) => html`
    <label>${title} <select id=${id} value=${value} onChange=${choose(name)}>
      ${choices.map(([key, text]) => html`<option key=${key} value=${key}>${text}</option>`)}
    </select></label>`;
  return html`
    <div class="filters" role="search" aria-label="Requests">
      ${choice("filter-model", "Model", given.model, "of", [["", "all"], .../** @type {[string, string][]} */ (names.map((id) => [id, id]))])}
      ${choice("filter-status", "Status", given.status, "status", Object.entries(STATUSES).map(([key, { name }]) => [key, name]))}
      ${choice("filter-span", "Since", given.span, "span", Object.entries(SPANS))}
      ${choice("filter-sort", "Order", given.sort, "sort", Object.entries(ORDERS))}
      <${TextFilter} text=${given.text} changed=${changed} />
      <span class="buttons">
        <button id="save-csv" type="button" disabled=${!canSave} onClick=${() => save(wanted, "csv").catch(complain)}>CSV</button>
        <button id="save-json" type="button" disabled=${!canSave} onClick=${() => save(wanted, "json").catch(complain)}>JSON</button>
      </span>
    </div>`;
}

/** @param {{text: string, changed: () => void}} props */
function TextFilter({ text, changed }) {
  const [typed, setTyped] = useState(text);
  useEffect(() => setTyped(text), [text]);
  const soon = useSoon(() => {
    set("text", typed.trim());
    changed();
  }, 250);
  /** @param {any} event */
  const type = (event) => {
    setTyped(event.target.value);
    soon();
  };
  return html`
    <label>Find <input id="filter-text" type="search" autocomplete="off" maxlength="200" placeholder="path, error, id, session" value=${typed} onInput=${type} /></label>`;
}
