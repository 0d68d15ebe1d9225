// State of the proxy as its events report it, in signals; pages read it and never write it.
//
// The stream lasts while the tab is visible: a browser allows few connections to one server.

import { signal, useEffect } from "./vendor/preact.js";
import { complain, Failure, followAgain, getJson } from "./api.js";

/** @typedef {import("./types.js").ModelStatus} ModelStatus */
/** @typedef {import("./types.js").Flight} Flight */

const EVENTS = "/api/events?logs=none";

/** Connection to the proxy. @type {import("./vendor/preact.js").Signal<{state: "connecting" | "live" | "lost" | "denied" | "paused", why: string}>} */
export const connection = signal({ state: "connecting", why: "" });
/** Models by id, peers' last; null before the first event. @type {import("./vendor/preact.js").Signal<Map<string, ModelStatus> | null>} */
export const models = signal(null);
/** Requests that have not ended, by id. @type {import("./vendor/preact.js").Signal<Map<string, Flight>>} */
export const flights = signal(new Map());
/** Requests that have just ended, by id, and when by `performance.now()`. @type {import("./vendor/preact.js").Signal<Map<string, {flight: Flight, at: number}>>} */
export const ended = signal(new Map());
/** The queue, as /api/queue returns it. @type {import("./vendor/preact.js").Signal<{queue: any[], swaps: any[], models: any[]}>} */
export const queue = signal({ queue: [], swaps: [], models: [] });
/** Memory pools, as /api/memory returns them. @type {import("./vendor/preact.js").Signal<any>} */
export const memory = signal(null);
/** A change of the configuration that was not applied. @type {import("./vendor/preact.js").Signal<any>} */
export const heldBack = signal(null);
/** @type {import("./vendor/preact.js").Signal<{active: string | null, profiles: {id: string}[]}>} */
export const profiles = signal({ active: null, profiles: [] });
/** Seconds that the scheduler's clock is behind the browser's; null before it is known. @type {import("./vendor/preact.js").Signal<number | null>} */
export const clock = signal(null);
/** When each idle model is unloaded: id -> seconds since 1970. @type {import("./vendor/preact.js").Signal<Record<string, number>>} */
export const unloadTimes = signal({});
/** Counts connections to the proxy: a page that has read something reads it again. */
export const epoch = signal(0);

const MOST_ENDED = 200;
const MOST_ROWS = 1000;
/** Row of the activity -> id that its request had under way. @type {Map<number, string>} */
const idsUnderWay = new Map();

/** Return the key of a finished request: the id that it had under way, if that is known. @param {number} row */
export const keyOfRow = (row) => idsUnderWay.get(row) ?? `row ${row}`;

const bus = new EventTarget();

/** Call `take` with the value of each event of this kind while a component is shown. @param {string} kind @param {(value: any) => void} take @param {unknown[]} [inputs] */
export function useEvents(kind, take, inputs = []) {
  useEffect(() => {
    /** @param {Event} event */
    const listen = (event) => take(/** @type {CustomEvent} */ (event).detail);
    bus.addEventListener(kind, listen);
    return () => bus.removeEventListener(kind, listen);
  }, inputs);
}

/** @type {Record<string, (value: any) => void>} */
const TAKE = {
  modelStatus: (rows) => (models.value = new Map(rows.map((/** @type {ModelStatus} */ row) => [row.id, row]))),
  inflight: takeFlights,
  activity: ({ id, inflight }) => {
    if (inflight) idsUnderWay.set(id, inflight);
    if (idsUnderWay.size > MOST_ROWS) idsUnderWay.delete(/** @type {number} */ (idsUnderWay.keys().next().value));
  },
  queue: (value) => (queue.value = value),
  memory: (value) => (memory.value = value),
  unloadTimes: (value) => (unloadTimes.value = value),
  config: ({ held_back: change }) => (heldBack.value = change),
  profileChanged: () => readProfiles(),
};

/** @param {any} value */
function takeFlights(value) {
  /** @param {Flight} row @returns {[string, Flight]} */
  const entry = (row) => [row.id, { ...row, began: performance.now() - row.elapsed_ms }];
  const found = new Map(value.operation === "snapshot" ? [] : flights.value);
  if (value.operation === "remove") {
    const flight = found.get(value.id);
    if (flight) noteEnd(flight);
    found.delete(value.id);
  }
  else if (value.operation === "upsert") found.set(...entry(value.request));
  else value.requests.forEach((/** @type {Flight} */ row) => found.set(...entry(row)));
  flights.value = found;
}

/** @param {Flight} flight */
function noteEnd(flight) {
  const at = performance.now();
  const kept = [...ended.value].filter(([, each]) => at - each.at < 10_000).slice(-MOST_ENDED);
  ended.value = new Map([...kept, [flight.id, { flight: { ...flight, ended: at }, at }]]);
}

/** @param {string} frame an event of the stream */
function takeFrame(frame) {
  const line = frame.split("\n").find((each) => each.startsWith("data:"));
  if (!line) return;
  const { type, data } = JSON.parse(line.slice(5));
  const value = JSON.parse(data);
  TAKE[type]?.(value);
  bus.dispatchEvent(new CustomEvent(type, { detail: value }));
}

/** @type {AbortController | null} */
let listening = null;

/** Listen from now on, from the beginning. */
export function begin() {
  listening?.abort();
  listening = new AbortController();
  let rest = "";
  let isNew = true;
  followAgain(
    EVENTS,
    listening.signal,
    () => {
      rest = "";
      isNew = true;
      connection.value = { state: "connecting", why: "" };
      idsUnderWay.clear(); // of the proxy before, as are the next ones
      ended.value = new Map();
      unloadTimes.value = {}; // of the proxy before; none is sent while no model is idle
    },
    (text) => {
      if (connection.value.state !== "live") connection.value = { state: "live", why: "" };
      const frames = (rest + text).split("\n\n");
      rest = frames.pop() ?? "";
      frames.forEach(takeFrame);
      if (!isNew) return;
      isNew = false;
      epoch.value += 1;
      readClock();
    },
    (error) => (connection.value = { state: error instanceof Failure && error.status < 500 ? "denied" : "lost", why: error.message }),
  );
}

function end() {
  listening?.abort();
  listening = null;
  connection.value = { state: "paused", why: "" };
}

async function readClock() {
  try {
    const { now } = await getJson("/api/queue");
    clock.value = Date.now() / 1000 - now;
  } catch (error) {
    complain(error);
  }
}

async function readProfiles() {
  try {
    profiles.value = await getJson("/api/profiles");
  } catch (error) {
    complain(error);
  }
}

/** Whether this tab is seen; pages end their own streams while it is not. */
export const isVisible = signal(!document.hidden);

document.addEventListener("visibilitychange", () => {
  isVisible.value = !document.hidden;
  if (document.hidden) end();
  else if (!listening) begin();
});
