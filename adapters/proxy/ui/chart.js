// The statechart of a model: the proxy places the states; the active and the possible ways are drawn.

import { html, useState } from "./vendor/preact.js";

/** @typedef {{x: number, y: number, width: number, height: number}} Box */

/**
 * Show a chart.
 *
 * @param {{chart: any, active: string[], last: any}} props `chart` is the body of /api/models/ID/chart, `last` the
 *   last transition or null.
 */
export function Chart({ chart, active, last }) {
  const [pointed, setPointed] = useState(/** @type {string | null} */ (null));
  const chosen = pointed ?? active.at(-1) ?? "";
  /** @type {Map<string, any>} */
  const states = new Map(chart.states.map((/** @type {any} */ state) => [state.id, state]));
  const from = [chosen, ...(states.get(chosen)?.above ?? []).toReversed()];
  const ways = chart.transitions.filter((/** @type {any} */ way) => from.includes(way.source));
  /** @param {string} id @returns {Box} */
  const place = (id) => states.get(id)?.place;
  const isTaken = !pointed && last && last.source !== last.target && states.has(last.source) && states.has(last.target);
  return html`
    <div class="life">
    <div class="chart-scroll" tabindex="0" role="region" aria-label="Chart">
      <div id="chart" class="chart" style=${{ width: `${chart.width}px`, height: `${chart.height}px` }}>
        ${chart.states.map(
          (/** @type {any} */ state) => html`
            <${State} key=${state.id} state=${state} isActive=${active.includes(state.id)} isPointed=${state.id === pointed}
              isLeft=${state.id === last?.source && !active.includes(state.id)}
              isGroup=${chart.states.some((/** @type {any} */ other) => other.above.at(-1) === state.id)} point=${setPointed} />`,
        )}
        <svg width=${chart.width} height=${chart.height} aria-hidden="true">
          ${ways.map((/** @type {any} */ way) => html`<${Arrow} key=${`${way.source} ${way.target}`} from=${place(way.source)} to=${place(way.target)} kind=${`way ${originOf(way)}`} />`)}
          ${isTaken && html`<${Arrow} from=${place(last.source)} to=${place(last.target)} kind="taken" />`}
        </svg>
      </div>
    </div>
    <div>
      <h3 id="ways-title">Transitions from ${chosen}</h3>
      <${Ways} chart=${chart} from=${from} ways=${ways} />
    </div>
    </div>`;
}

/** Return who sends the events of a transition; empty if several do. @param {any} way */
function originOf(way) {
  const origins = new Set(way.labels.map((/** @type {any} */ label) => label.origin));
  return origins.size === 1 ? [...origins][0] : "";
}

/** @param {{state: any, isActive: boolean, isPointed: boolean, isLeft: boolean, isGroup: boolean, point: (id: string | null) => void}} props */
function State({ state, isActive, isPointed, isLeft, isGroup, point }) {
  const { x, y, width, height } = state.place;
  const role = state.is_serving ? "serving" : state.is_quiet ? "quiet" : "";
  const kinds = ["state", isGroup && "group", isActive && "active", isPointed && "pointed", isLeft && "left"];
  return html`
    <div class=${kinds.filter(Boolean).join(" ")} data-kind=${state.kind} data-role=${role} data-state=${state.id}
      style=${{ left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` }}>
      <button type="button" class="state-name" onFocus=${() => point(state.id)} onBlur=${() => point(null)}
        onPointerEnter=${() => point(state.id)} onPointerLeave=${() => point(null)}>${state.id}</button>
    </div>`;
}

/** The transitions out of a state as a table. @param {{chart: any, from: string[], ways: any[]}} props */
function Ways({ chart, from, ways }) {
  const staying = chart.states
    .filter((/** @type {any} */ state) => from.includes(state.id))
    .flatMap((/** @type {any} */ state) => state.inside.map((/** @type {any} */ label) => ["stays", label]));
  const leading = ways.flatMap((way) => way.labels.map((/** @type {any} */ label) => [way.target, label]));
  return html`
    <div class="scroll">
      <table id="ways">
        <thead><tr><th>On</th><th>If</th><th>Goes to</th><th>Actions</th></tr></thead>
        <tbody>
          ${[...leading, ...staying].map(
            ([target, label], index) => html`
              <tr key=${index}>
                <td class=${`event ${label.origin}`}>${label.events.join(", ") || "at once"}</td>
                <td>${label.guard}</td><td>${target}</td><td class="quiet">${label.actions.join(", ")}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>`;
}

/** An arrow from one box to another, bent a little, as another arrow may lead back. @param {{from: Box, to: Box, kind: string}} props */
function Arrow({ from, to, kind }) {
  const [start, finish] = [middle(from), middle(to)];
  const [dx, dy] = [finish.x - start.x, finish.y - start.y];
  const length = Math.hypot(dx, dy);
  if (!length) return null;
  const bend = Math.min(0.16 * length, 46);
  const control = {
    x: (start.x + finish.x) / 2 - (dy / length) * bend,
    y: (start.y + finish.y) / 2 + (dx / length) * bend,
  };
  const tail = edgeOf(from, control);
  const head = edgeOf(to, control);
  const angle = Math.atan2(head.y - control.y, head.x - control.x);
  /** @param {number} turn */
  const wing = (turn) => `${head.x - 9 * Math.cos(angle + turn)},${head.y - 9 * Math.sin(angle + turn)}`;
  return html`
    <g class=${kind}>
      <path d=${`M${tail.x},${tail.y}Q${control.x},${control.y} ${head.x},${head.y}`} />
      <polygon points=${`${head.x},${head.y} ${wing(0.4)} ${wing(-0.4)}`} />
    </g>`;
}

/** @param {Box} box */
const middle = (box) => ({ x: box.x + box.width / 2, y: box.y + box.height / 2 });

/** Return where the line from the middle of `box` towards `point` leaves the box. @param {Box} box @param {{x: number, y: number}} point */
function edgeOf(box, point) {
  const { x, y } = middle(box);
  const [dx, dy] = [point.x - x, point.y - y];
  const share = Math.min(
    dx ? box.width / 2 / Math.abs(dx) : Infinity,
    dy ? box.height / 2 / Math.abs(dy) : Infinity,
  );
  return { x: x + dx * share, y: y + dy * share };
}
