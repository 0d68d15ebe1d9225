// Components and hooks that several pages use.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { command, getJson } from "./api.js";
import { messageOf, seconds, size, words } from "./format.js";
import { epoch, flights, memory, unloadTimes } from "./store.js";

/** @typedef {import("./types.js").ModelStatus} ModelStatus */

/** Return the color class of a state's badge. @param {ModelStatus} row */
export function moodOf(row) {
  const active = row.configuration ?? [];
  if (active.includes("failed") || active.includes("backoff")) return "failed";
  return row.state || "peer";
}

/** Return the active states in words. @param {ModelStatus} row */
export function stateText(row) {
  const active = row.configuration ?? [];
  const inner = active.at(-1) ?? "";
  const outer = active.at(-2) ?? "";
  const isInside = outer && outer !== "alive" && outer !== active[0];
  return isInside ? `${words(outer)} · ${words(inner)}` : words(inner);
}

/** Return why a model is not well; empty when nothing is known against it. @param {ModelStatus} row */
export function trouble(row) {
  if (moodOf(row) !== "failed" && !row.failures) return "";
  const times = (row.failures ?? 0) > 1 ? ` ${row.failures} times in a row` : "";
  return `Failed${times}${row.cause ? `: ${row.cause}` : ""}`;
}

/** Return how many requests a model has, in words. @param {string} model */
export function loadOf(model) {
  const own = [...flights.value.values()].filter((flight) => flight.model === model);
  const waiting = own.filter((flight) => flight.is_waiting).length;
  const parts = [];
  if (own.length > waiting) parts.push(`${own.length - waiting} running`);
  if (waiting) parts.push(`${waiting} waiting`);
  return parts.join(", ");
}

/** Return what is known about the time of a model: until it is unloaded, or that a start takes. @param {ModelStatus} row */
function timeOf(row) {
  if (row.state === "ready" || row.state === "sleeping") {
    const at = unloadTimes.value[row.id];
    if (at) return `unloads in ${seconds(Math.max(0, Math.round(at - Date.now() / 1000)))}`;
    return row.pinned || row.kept ? "pinned" : "";
  }
  return row.load_s === undefined ? "" : `loads in about ${seconds(row.load_s)}`;
}

/** Requests, memory and times of a model in a few words. @param {{row: ModelStatus}} props */
export function Facts({ row }) {
  const holder = memory.value?.models.find((/** @type {any} */ each) => each.model === row.id);
  const pools = Object.keys({ ...holder?.claim, ...holder?.seen });
  const held = pools.map((pool) => Math.max(holder.claim[pool] ?? 0, holder.seen[pool] ?? 0)).reduce((sum, each) => sum + each, 0);
  useTick(1000, unloadTimes.value[row.id] !== undefined);
  return html`
    <span class="quiet facts-of">
      <span class="load">${loadOf(row.id)}</span> <span class="held">${held > 0 && size(held)}</span> <span class="times">${timeOf(row)}</span>
    </span>`;
}

/** Keeps a loaded model until it is unloaded, or gives it its idle limit again. @param {{row: ModelStatus}} props */
function PinButton({ row }) {
  const verb = row.kept ? "unpin" : "pin";
  const label = row.kept ? `Unpin ${row.id}: unload it when it is idle` : `Pin ${row.id} until it is unloaded`;
  return html`
    <button type="button" class="keep" aria-label=${label} onClick=${() => command("POST", `/api/models/${verb}/${encodeURIComponent(row.id)}`)}>
      ${row.kept ? "Unpin" : "Pin"}</button>`;
}

/** Buttons that load and unload a model. @param {{row: ModelStatus}} props */
export function LoadButtons({ row }) {
  const isDown = row.state === "stopped" || row.state === "shutdown";
  const canStop = !isDown || (row.configuration ?? []).includes("backoff");
  return html`
    <button type="button" class="start primary" aria-label=${`Load ${row.id}`} disabled=${!isDown || row.state === "shutdown"}
      onClick=${() => command("POST", "/models/load", { model: row.id })}>Load</button>
    ${(row.kept || unloadTimes.value[row.id] !== undefined) && html`<${PinButton} row=${row} />`}
    <button type="button" class="stop" aria-label=${`Unload ${row.id}`} disabled=${!canStop}
      onClick=${() => command("POST", `/api/models/unload/${encodeURIComponent(row.id)}`)}>Unload</button>`;
}

/**
 * Read JSON when a component is shown, when the path changes and after each new connection.
 *
 * @param {string} path empty reads nothing
 * @param {number} [version] reads again when it changes
 * @returns {{value: any, problem: string, again: () => void}} `value` is null before the first answer.
 */
export function useJson(path, version = 0) {
  const [found, setFound] = useState({ path, value: /** @type {any} */ (null), problem: "" });
  const [count, setCount] = useState(0);
  const seen = epoch.value;
  useEffect(() => {
    if (!path) return undefined;
    const aborter = new AbortController();
    getJson(path, aborter.signal).then(
      (value) => setFound({ path, value, problem: "" }),
      (error) => {
        if (!aborter.signal.aborted) setFound((old) => ({ path, value: old.value, problem: messageOf(error) }));
      },
    );
    return () => aborter.abort();
  }, [path, version, count, seen]);
  return { value: found.value, problem: found.problem, again: () => setCount((old) => old + 1) };
}

/** Return a function that calls `work` once, `ms` later, however often it is called. @param {() => void} work @param {number} ms */
export function useSoon(work, ms) {
  const timer = useRef(/** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined));
  const latest = useRef(work);
  latest.current = work;
  useEffect(() => () => clearTimeout(timer.current), []);
  return useRef(() => {
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      latest.current();
    }, ms);
  }).current;
}

/** Draw a component again every `ms` while `isOn`. @param {number} ms @param {boolean} isOn */
export function useTick(ms, isOn) {
  const [, setTick] = useState(0);
  useEffect(() => {
    if (!isOn) return undefined;
    const timer = setInterval(() => setTick((old) => old + 1), ms);
    return () => clearInterval(timer);
  }, [ms, isOn]);
}

/** Show the first items of a long list, and the rest on demand. @param {{items: any[], step?: number, children: (items: any[]) => any}} props */
export function Limited({ items, step = 100, children }) {
  const [limit, setLimit] = useState(step);
  const rest = items.length - limit;
  return html`
    ${children(items.slice(0, limit))}
    ${rest > 0 &&
    html`
      <p class="more">
        <button type="button" onClick=${() => setLimit(limit + step)}>Show ${Math.min(rest, step)} more of ${rest}</button>
      </p>`}`;
}
