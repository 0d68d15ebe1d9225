// Timeline: which model was resident when, what each request waited for, and what each swap ran.

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { complain, getJson } from "../api.js";
import { byName, clockTime, count, seconds, size } from "../format.js";
import { Limited, useSoon, useTick } from "../parts.js";
import { address } from "../router.js";
import { epoch, isVisible, keyOfRow, models, useEvents } from "../store.js";
import { Axis, LaneBar, MemoryBar, RequestBars, useWidth } from "../timeline/bars.js";
import { endOf, waitingNow, waitOf, withAnswers } from "../timeline/live.js";
import { SwapDialog } from "../timeline/swap.js";

/** @typedef {import("../timeline/types.js").Timeline} Timeline */
/** @typedef {import("../timeline/types.js").Span} Span */
/** @typedef {import("../timeline/types.js").WaitingRequest} WaitingRequest */

const MINUTE = 60_000;
const DAY = 86_400_000;
const SHORTEST = MINUTE;
const LONGEST = 7 * DAY;
/** Buttons: name -> length of the span in ms. @type {[string, number][]} */
const SPANS = [["1 min", MINUTE], ["10 min", 10 * MINUTE], ["1 h", 60 * MINUTE], ["6 h", 360 * MINUTE], ["24 h", DAY], ["7 days", LONGEST]];
/** States of a lane, in the order of the legend. */
const LEGEND = ["starting", "resident", "answering", "asleep", "stopping", "failed"];
/** Parts of a wait, in their order. @type {[string, string][]} */
const WAITS = [["queue", "queue"], ["evict", "evictions"], ["start", "start"], ["hooks", "hooks"], ["first", "first byte"]];

export default function Timeline() {
  const [length, setLength] = useState(60 * MINUTE);
  const [end, setEnd] = useState(/** @type {number | null} */ (null)); // null: now, and live
  const [found, setFound] = useState(/** @type {Timeline | null} */ (null));
  const [problem, setProblem] = useState("");
  const [version, setVersion] = useState(0);
  const [swap, setSwap] = useState("");
  const again = () => setVersion((old) => old + 1);
  const soon = useSoon(() => end === null && again(), 500);
  useEvents("transition", soon, [end]);
  useEvents("activity", soon, [end]);
  useTick(Math.max(500, Math.min(length / 600, 5000)), end === null);
  useEffect(() => {
    if (end !== null) return undefined;
    const timer = setInterval(() => isVisible.value && again(), Math.max(10_000, length / 300)); // for memory, which has no event
    return () => clearInterval(timer);
  }, [end, length]);
  const seen = epoch.value;
  useEffect(() => {
    const aborter = new AbortController();
    const until = end ?? Date.now();
    getJson(`/api/timeline?from=${Math.round(until - length)}&to=${Math.round(until)}`, aborter.signal).then(
      (value) => {
        setFound(value);
        setProblem(value.problem ?? "");
      },
      (error) => !aborter.signal.aborted && setProblem(error.message),
    );
    return () => aborter.abort();
  }, [length, end, version, seen]);
  const until = end ?? Date.now();
  const live = found && end === null ? waitingNow(found.requests) : [];
  /** @type {Span} */
  const span = { from: until - length, to: until };
  /** Show another span around a moment. @param {number} factor @param {number} [at] */
  const zoom = (factor, at) => {
    const next = Math.min(Math.max(length * factor, SHORTEST), LONGEST);
    const around = at ?? (end === null ? until : until - length / 2);
    const to = around + ((until - around) * next) / length;
    setLength(next);
    setEnd(to >= Date.now() - next / 200 ? null : to);
  };
  /** @param {number} share of the span; negative is back */
  const move = (share) => {
    const to = until + share * length;
    setEnd(to >= Date.now() ? null : to);
  };
  return html`
    <section id="page-timeline" aria-labelledby="timeline-title">
      <div class="title">
        <h1 id="timeline-title">Timeline</h1>
        <p id="timeline-sum" class="quiet">${found && summary(found, live)}</p>
      </div>
      <${Controls} length=${length} isLive=${end === null} zoom=${zoom} move=${move}
        choose=${(/** @type {number} */ next) => { setLength(next); setEnd(null); }} live=${() => setEnd(end === null ? Date.now() : null)} />
      ${problem && html`<p id="timeline-problem" class="notice" role="alert">${problem}</p>`}
      ${found && html`<${Charts} found=${found} waiting=${live} span=${span} isLive=${end === null} zoom=${zoom} move=${move} live=${() => setEnd(null)} show=${setSwap} />`}
      ${!found && !problem && html`<p class="quiet">Loading…</p>`}
      ${found && html`<${Waits} found=${found} waiting=${live} show=${setSwap} />`}
      ${found && html`<${Swaps} found=${found} show=${setSwap} />`}
      ${swap && html`<${SwapDialog} key=${swap} id=${swap} close=${() => setSwap("")} />`}
    </section>`;
}

/** @param {Timeline} found @param {WaitingRequest[]} live */
function summary(found, live) {
  const parts = [`${count(found.swaps.length)} swaps`, `${count(found.total_requests)} requests waited ${seconds(found.total_waited_ms / 1000)} in all`];
  for (const end of /** @type {const} */ (["rejected", "failed", "canceled"])) {
    const number = found.requests.reduce((sum, row) => sum + row[end], 0);
    if (number) parts.push(`${count(number)} ${end}`);
  }
  if (live.length) parts.push(`${count(live.length)} under way`);
  if (found.restored_tokens) {
    parts.push(`${count(found.restored_tokens)} tokens restored`);
    if (found.saved_ms > 0) parts.push(`about ${seconds(found.saved_ms / 1000)} saved`);
  }
  return parts.join(" · ");
}

/** @param {{length: number, isLive: boolean, zoom: (factor: number) => void, move: (share: number) => void, choose: (length: number) => void, live: () => void}} props */
function Controls({ length, isLive, zoom, move, choose, live }) {
  return html`
    <div class="filters" role="group" aria-label="Time">
      <span class="buttons spans">
        ${SPANS.map(([name, value]) => html`<button key=${name} type="button" aria-pressed=${Math.abs(length - value) < 1} onClick=${() => choose(value)}>${name}</button>`)}
      </span>
      <span class="buttons">
        <button type="button" id="earlier" aria-label="Earlier" onClick=${() => move(-0.5)}>←</button>
        <button type="button" id="zoom-out" aria-label="Zoom out" disabled=${length >= LONGEST} onClick=${() => zoom(2)}>−</button>
        <button type="button" id="zoom-in" aria-label="Zoom in" disabled=${length <= SHORTEST} onClick=${() => zoom(0.5)}>+</button>
        <button type="button" id="later" aria-label="Later" disabled=${isLive} onClick=${() => move(0.5)}>→</button>
        <button type="button" id="live" aria-pressed=${isLive} onClick=${live}>Live</button>
      </span>
    </div>`;
}

/** @param {{found: Timeline, waiting: WaitingRequest[], span: Span, isLive: boolean, zoom: (factor: number, at?: number) => void, move: (share: number) => void, live: () => void, show: (swap: string) => void}} props */
function Charts({ found, waiting, span, isLive, zoom, move, live, show }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const track = useRef(/** @type {HTMLElement | null} */ (null));
  const width = useWidth(track);
  const latest = useRef({ span, zoom, move });
  latest.current = { span, zoom, move };
  useEffect(() => {
    /** Zoom at the pointer; without Ctrl only over the axis, so that the page can be scrolled. @param {WheelEvent} event */
    const wheel = (event) => {
      const box = track.current?.getBoundingClientRect();
      const isAxis = event.target instanceof Element && event.target.closest(".axis") !== null;
      if (!box || !(event.ctrlKey || event.metaKey || isAxis)) return;
      event.preventDefault();
      const now = latest.current;
      const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      now.zoom(event.deltaY > 0 ? 1.25 : 0.8, now.span.from + share * (now.span.to - now.span.from));
    };
    place.current?.addEventListener("wheel", wheel, { passive: false });
    return () => place.current?.removeEventListener("wheel", wheel);
  }, []);
  /** @param {KeyboardEvent} event */
  const press = (event) => {
    /** @type {Record<string, () => void>} */
    const actions = {
      ArrowLeft: () => move(-0.25), ArrowRight: () => move(0.25), "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), End: live,
    };
    const action = event.target === place.current && !event.ctrlKey && !event.metaKey && !event.altKey && actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  const lanes = withAnswers(sorted(found), waiting, span.to);
  const unused = models.value ? [...models.value.keys()].filter((id) => !models.value?.get(id)?.peerID && !found.lanes.some((lane) => lane.model === id)).length : 0;
  const open = isLive ? found.end : 0;
  return html`
    <section class="card" aria-labelledby="lanes-title">
      <div class="title"><h2 id="lanes-title">Models</h2>
        <ul class="legend">${LEGEND.map((state) => html`<li key=${state}><svg class="key" width="14" height="12" aria-hidden="true"><rect class=${`state-${state}`} width="14" height="12" /></svg> ${state}</li>`)}</ul></div>
      <div id="timeline" class="timeline" ref=${place} tabindex="0" role="group" onKeyDown=${press}
        aria-label=${`From ${clockTime(span.from)} to ${clockTime(span.to)}. Left and right move, plus and minus zoom, End is now. The tables below say the same in words.`}>
        <div class="lane"><span class="lane-name"></span><div ref=${track} class="track axis"><${Axis} span=${span} width=${width} /></div></div>
        <${Limited} items=${lanes} step=${30}>
          ${(/** @type {any[]} */ shown) => shown.map((lane) => html`
            <div key=${lane.model} class="lane">
              <a class="lane-name" href=${address("models", { model: lane.model })} title=${lane.model}>${lane.model}</a>
              <div class="track"><${LaneBar} lane=${lane} swaps=${found.swaps} restored=${found.restored} span=${span} width=${width} open=${open} show=${show} /></div>
            </div>`)}
        <//>
        ${!found.lanes.length && html`<p id="nothing">No model was loaded in this time. A request loads its model; see <a href=${address("models")}>all models</a>, or <a href=${address("playground")}>try one</a>.</p>`}
        ${unused > 0 && html`<p id="unused" class="quiet">${count(unused)} other ${unused === 1 ? "model was" : "models were"} not loaded in this time.</p>`}
        <div class="title"><h2>Requests</h2>
          <ul class="legend">${WAITS.map(([kind, name]) => html`<li key=${kind}><svg class="key" width="14" height="12" aria-hidden="true"><rect class=${`wait-${kind}`} width="14" height="12" /></svg> ${name}</li>`)}
            <li><svg class="key" width="14" height="12" aria-hidden="true"><path class="end-failed" d="M3 2l8 8m0 -8l-8 8" /></svg> rejected or failed</li>
            <li><svg class="key" width="14" height="12" aria-hidden="true"><path class="end-canceled" d="M3 2l8 8m0 -8l-8 8" /></svg> canceled</li></ul></div>
        <div class="lane"><span class="lane-name quiet">waited for</span>
          <div class="track"><${RequestBars} requests=${[...found.requests, ...waiting]} span=${span} width=${width} show=${show} /></div></div>
        ${found.memory.length > 0 && html`<h2>Memory</h2>`}
        ${found.memory.map((device) => html`
          <div key=${device.device} class="lane memory">
            <span class="lane-name" title=${device.device}>${device.device}<small>${memoryText(device)}</small></span>
            <div class="track"><${MemoryBar} device=${device} span=${span} width=${width} open=${open} /></div>
          </div>`)}
      </div>
      <p class="quiet">Ctrl and wheel, or the wheel over the times, zoom. A swap can be clicked, and is listed below.</p>
    </section>`;
}

/** @param {any} device */
function memoryText(device) {
  const last = device.points.at(-1);
  return last ? `${size(last[1])} of ${size(device.capacity)}` : "";
}

/** Return the lanes: models that run now first, then those that were used last. @param {Timeline} found */
function sorted(found) {
  /** @param {any} lane */
  const isOn = (lane) => lane.states.some((/** @type {any} */ each) => each.until >= found.end);
  return [...found.lanes].sort((a, b) => Number(isOn(b)) - Number(isOn(a)) || byName(a.model, b.model));
}

/** Requests under way, then those that waited longest or were not served, in words. @param {{found: Timeline, waiting: WaitingRequest[], show: (swap: string) => void}} props */
function Waits({ found, waiting, show }) {
  const rows = found.requests.filter((row) => waitOf(row) > 0 || endOf(row)).sort((a, b) => waitOf(b) - waitOf(a)).slice(0, 200);
  const all = [...waiting, ...rows];
  return html`
    <section class="card" aria-labelledby="waits-title">
      <h2 id="waits-title">Longest waits</h2>
      ${!all.length && html`<p class="quiet">No request had to wait.</p>`}
      ${all.length > 0 && html`
        <${Limited} items=${all} step=${10}>
          ${(/** @type {WaitingRequest[]} */ shown) => html`
            <div class="scroll"><table id="waits">
              <thead><tr><th>When</th><th>Model</th><th class="number">Waited</th><th>For</th><th><span class="unseen">Swap</span></th></tr></thead>
              <tbody>${shown.map((row) => html`<tr key=${row.key ?? keyOfRow(row.id)} class=${row.key ? "live" : ""}>
                <td class="time">${row.key ? "now" : clockTime(row.at)}</td><td>${row.model}${row.requests > 1 && html`<small>and ${row.requests - 1} more at that time</small>`}</td>
                <td class="number">${seconds(waitOf(row) / 1000)}</td><td>${row.key ? html`<${LiveWords} row=${row} />` : html`<${WaitWords} row=${row} />`}</td>
                <td>${row.swap_id && html`<button type="button" aria-label=${`Swap that request ${row.key ?? row.id} waited for`} onClick=${() => show(row.swap_id)}>Swap</button>`}</td>
              </tr>`)}</tbody></table></div>`}
        <//>`}
    </section>`;
}

/** @param {WaitingRequest} row */
const waitParts = (row) => WAITS.slice(0, 4).filter(([kind]) => /** @type {any} */ (row)[`${kind}_ms`] > 0)
  .map(([kind, name]) => `${name} ${seconds(/** @type {any} */ (row)[`${kind}_ms`] / 1000)}`).join(", ");

/** What a request under way waits or has waited for. @param {{row: WaitingRequest}} props */
function LiveWords({ row }) {
  return html`<strong>${row.state}</strong><small>${waitParts(row)}</small>`;
}

/** What a request waited for; why, once it is asked. @param {{row: any}} props */
function WaitWords({ row }) {
  const [why, setWhy] = useState(/** @type {any} */ (null));
  const ask = async () => {
    try {
      const { data } = await getJson(`/api/metrics/activity?min_id=${row.id}&max_id=${row.id}`);
      setWhy(data[0]?.wait ?? { reasons: [], resident: [], evicted: [] });
    } catch (error) {
      complain(error);
    }
  };
  return html`
    ${waitParts(row)} ${endOf(row) && html`<span class="bad">${endOf(row)}${row.requests === 1 && ` (${row.status})`}</span>`}${" "}
    ${!why && html`<button type="button" class="ask" aria-label=${`Why request ${row.id} waited`} onClick=${ask}>Why?</button>`}
    ${why && html`<small class="reasons">${whyText(why)}</small>`}`;
}

/** @param {any} wait */
export function whyText(wait) {
  const parts = [wait.resident.length ? `${wait.resident.join(", ")} ran when it came` : "No model ran when it came"];
  if (wait.evicted.length) parts.push(`evicted: ${wait.evicted.join(", ")}`);
  for (const reason of wait.reasons) parts.push(`after ${seconds(reason.after_ms / 1000)}: ${reason.why}`);
  return parts.join("; ");
}

/** All swaps in words. @param {{found: Timeline, show: (swap: string) => void}} props */
function Swaps({ found, show }) {
  const rows = [...found.swaps].reverse();
  return html`
    <section class="card" aria-labelledby="swaps-title">
      <h2 id="swaps-title">Swaps</h2>
      ${!rows.length && html`<p class="quiet">None in this time.</p>`}
      ${rows.length > 0 && html`
        <${Limited} items=${rows} step=${20}>
          ${(/** @type {any[]} */ shown) => html`
            <div class="scroll"><table id="timeline-swaps">
              <thead><tr><th>When</th><th>Started</th><th>Stopped</th><th>Cause</th><th class="number">Took</th><th><span class="unseen">Actions</span></th></tr></thead>
              <tbody>${shown.map((row) => html`<tr key=${row.id}>
                <td class="time">${clockTime(row.at)}</td><td>${row.started.join(", ")}${row.failed && html` <span class="bad">failed</span>`}</td><td>${row.stopped.join(", ")}</td>
                <td>${row.cause.replaceAll("_", " ")}</td><td class="number">${seconds((row.until - row.at) / 1000)}</td>
                <td><button type="button" aria-label=${`Show swap of ${[...row.stopped, ...row.started].join(", ")} at ${clockTime(row.at)}`} onClick=${() => show(row.id)}>Show</button></td>
              </tr>`)}</tbody></table></div>`}
        <//>`}
    </section>`;
}
