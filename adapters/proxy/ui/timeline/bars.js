// Drawings of the timeline: the axis, lanes, requests and memory, as SVG in pixels.

import { html, useEffect, useState } from "../vendor/preact.js";
import { seconds, size } from "../format.js";
import { keyOfRow } from "../store.js";
import { endOf } from "./live.js";

/** @typedef {import("./types.js").Span} Span */

const LANE = 24;
/** Height of a state in its lane, by which it is recognized without its color. @type {Record<string, number>} */
const HEIGHTS = { starting: 12, resident: 20, asleep: 6, stopping: 12, failed: 20 };
const ROW = 7;
const MOST_ROWS = 14;
/** Distances of marks on the axis, in ms. */
const STEPS = [5e3, 10e3, 30e3, 60e3, 300e3, 600e3, 1800e3, 3600e3, 3 * 3600e3, 6 * 3600e3, 12 * 3600e3, 86400e3];

/** Return the width of an element in pixels, also after it changes. @param {{current: HTMLElement | null}} place */
export function useWidth(place) {
  const [width, setWidth] = useState(600);
  useEffect(() => {
    const element = place.current;
    if (!element) return undefined;
    const observer = new ResizeObserver(() => setWidth(Math.max(element.clientWidth, 40)));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return width;
}

/** Return the function from times to pixels. @param {Span} span @param {number} width @returns {(at: number) => number} */
const scale = (span, width) => (at) => Math.min(Math.max(((at - span.from) / (span.to - span.from)) * width, -2), width + 2);

/** @param {{span: Span, width: number}} props */
export function Axis({ span, width }) {
  const x = scale(span, width);
  const most = Math.max(Math.floor(width / 85), 1);
  const length = span.to - span.from;
  const step = STEPS.find((each) => length / each <= most) ?? 2 * 86400e3;
  const shift = new Date(span.from).getTimezoneOffset() * 60e3;
  const first = Math.ceil((span.from - shift) / step) * step + shift;
  const ticks = [];
  for (let at = first; at <= span.to; at += step) ticks.push(at);
  return html`
    <svg width=${width} height="20" aria-hidden="true">
      ${ticks.map((at) => html`<g key=${at}><line class="tick" x1=${x(at)} x2=${x(at)} y1="14" y2="20" /><text class="tick-text" x=${x(at)} y="11" text-anchor=${anchor(x(at), width)}>${label(at, step)}</text></g>`)}
    </svg>`;
}

/** @param {number} x @param {number} width */
const anchor = (x, width) => (x < 30 ? "start" : x > width - 30 ? "end" : "middle");

/** @param {number} at @param {number} step */
function label(at, step) {
  const time = new Date(at);
  if (step >= 86400e3) return time.toLocaleDateString(undefined, { weekday: "short", day: "numeric" });
  if (step < 60e3) return time.toLocaleTimeString();
  return time.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

/**
 * One model: its states, when it answered, restored tokens, and the swaps that can be clicked.
 *
 * @param {{lane: any, swaps: any[], restored: any[], span: Span, width: number, open: number, show: (swap: string) => void}} props
 *   An interval that lasts until `open` goes on.
 */
export function LaneBar({ lane, swaps, restored, span, width, open, show }) {
  const x = scale(span, width);
  /** @param {any} each */
  const ends = (each) => (open && each.until >= open ? span.to : each.until);
  /** @param {any} each @param {number} least */
  const wide = (each, least) => Math.max(x(ends(each)) - x(each.at), least);
  /** @param {any} each */
  const isSeen = (each) => ends(each) >= span.from && each.at <= span.to;
  const own = swaps.filter((swap) => (swap.started.includes(lane.model) || swap.stopped.includes(lane.model)) && swap.until >= span.from && swap.at <= span.to);
  return html`
    <svg width=${width} height=${LANE} aria-hidden="true">
      <line class="ground" x1="0" x2=${width} y1=${LANE - 1} y2=${LANE - 1} />
      ${lane.states.filter(isSeen).map((/** @type {any} */ each) => html`
        <rect key=${`${each.at} ${each.state}`} class=${`state-${each.state}`} x=${x(each.at)} y=${LANE - 2 - HEIGHTS[each.state]} width=${wide(each, 1)} height=${HEIGHTS[each.state]}><title>${`${lane.model}: ${each.state} for ${seconds((ends(each) - each.at) / 1000)}`}</title></rect>`)}
      ${lane.answering.filter(isSeen).map((/** @type {any} */ each) => html`<rect key=${`answer ${each.at}`} class="state-answering" x=${x(each.at)} y=${LANE - 9} width=${wide(each, 1)} height="7"><title>answering</title></rect>`)}
      ${restored.filter((each) => each.model === lane.model && each.at >= span.from).map((each) => html`
        <path key=${`restored ${each.at}`} class="restored" d=${`M${x(each.at)} 1l5 5l-5 5l-5 -5z`}><title>${`${each.tokens} tokens restored in ${seconds(each.restore_ms / 1000)}${each.saved_ms === null ? "" : `, about ${seconds(Math.max(each.saved_ms, 0) / 1000)} saved`}`}</title></path>`)}
      ${own.map((swap) => html`
        <rect key=${swap.id} class="swap" data-swap=${swap.id} x=${x(swap.at) - 2} y="0" width=${Math.max(x(swap.until) - x(swap.at), 4) + 4} height=${LANE} onClick=${() => show(swap.id)}><title>${`Swap (${swap.cause}): ${[...swap.stopped.map((/** @type {string} */ name) => `stopped ${name}`), ...swap.started.map((/** @type {string} */ name) => `started ${name}`)].join(", ")}`}</title></rect>`)}
    </svg>`;
}

/** What each request waited for, from its arrival to its first byte, in as few rows as fit. @param {{requests: any[], span: Span, width: number, show: (swap: string) => void}} props */
export function RequestBars({ requests, span, width, show }) {
  const x = scale(span, width);
  const rows = placed(requests, x);
  const height = Math.max(...rows.map((row) => row.row + 1), 1) * ROW + 2;
  return html`
    <svg width=${width} height=${height} aria-hidden="true">
      ${rows.map(({ request, row, parts, end }) => html`
        <g key=${request.key ?? keyOfRow(request.id)} data-key=${request.key} class=${request.swap_id ? "waiting clickable" : "waiting"} onClick=${() => request.swap_id && show(request.swap_id)}>
          <title>${[`${request.model}: ${parts.map((part) => `${part.kind} ${seconds(part.ms / 1000)}`).join(", ")}`, request.state, endOf(request)].filter(Boolean).join("; ")}</title>
          ${parts.map((part) => html`<rect key=${part.kind} class=${`wait-${part.kind}`} x=${x(part.at)} y=${row * ROW} width=${Math.max(x(part.at + part.ms) - x(part.at), 1)} height=${ROW - 2} />`)}
          ${endOf(request) && html`<path class=${request.canceled ? "end-canceled" : "end-failed"} d=${cross(x(end), row * ROW + ROW / 2 - 1)} />`}
        </g>`)}
    </svg>`;
}

/** Return a cross at a point. @param {number} x @param {number} y */
const cross = (x, y) => `M${x - 3} ${y - 3}l6 6m0 -6l-6 6`;

/** Give each request a row in which it touches no other. @param {any[]} requests @param {(at: number) => number} x */
function placed(requests, x) {
  /** @type {number[]} */
  const ends = [];
  const found = [];
  for (const request of requests) {
    let at = request.at;
    const parts = [];
    for (const [kind, ms] of [["queue", request.queue_ms], ["evict", request.evict_ms], ["start", request.start_ms], ["hooks", request.hooks_ms], ["first", request.first_byte_ms]]) {
      if (ms > 0) parts.push({ kind, at, ms });
      at += ms;
    }
    const left = x(request.at);
    const isServed = !endOf(request);
    const end = isServed ? at : Math.max(at, request.at + request.duration_ms);
    const right = Math.max(x(end), left + 1) + (isServed ? 1 : 5);
    if ((isServed && !parts.length) || right < 0) continue;
    let row = ends.findIndex((end) => end <= left);
    if (row < 0) row = ends.length < MOST_ROWS ? ends.length : ends.indexOf(Math.min(...ends));
    ends[row] = Math.max(right, ends[row] ?? 0);
    found.push({ request, row, parts, end });
  }
  return found;
}

/** Memory of one device. @param {{device: any, span: Span, width: number, open: number}} props */
export function MemoryBar({ device, span, width, open }) {
  const high = 40;
  const x = scale(span, width);
  /** @param {number} used */
  const y = (used) => high - 1 - (Math.min(used / Math.max(device.capacity, 1), 1) * (high - 3));
  const points = device.points.filter((/** @type {[number, number]} */ point) => point[0] <= span.to);
  let path = "";
  points.forEach((/** @type {[number, number]} */ [at, used], /** @type {number} */ index) => {
    path += index ? `H${x(at)}V${y(used)}` : `M${x(at)} ${high - 1}V${y(used)}`;
  });
  if (path) path += `H${open ? x(span.to) : x(points.at(-1)[0])}V${high - 1}Z`;
  return html`
    <svg width=${width} height=${high} aria-hidden="true">
      <line class="capacity" x1="0" x2=${width} y1="2" y2="2" /><line class="ground" x1="0" x2=${width} y1=${high - 1} y2=${high - 1} />
      <path class="used" d=${path}><title>${`${device.device}: ${size(device.capacity)} in all`}</title></path>
    </svg>`;
}
