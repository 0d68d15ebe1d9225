// The statechart of a model: states as boxes, and the transitions out of the active one.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";

const SVG = "http://www.w3.org/2000/svg";

/** @typedef {{x: number, y: number, width: number, height: number}} Box */

/** A state with the states inside of it. @param {{state: any, chart: any, marks: any, point: (id: string | null) => void}} props */
function State({ state, chart, marks, point }) {
  const inside = chart.states.filter((/** @type {any} */ other) => other.above.at(-1) === state.id);
  const role = state.is_serving ? "serving" : state.is_quiet ? "quiet" : "";
  const isActive = marks.active.includes(state.id);
  const kinds = ["state", isActive && "active", state.id === marks.pointed && "pointed"];
  if (state.id === marks.last?.source && !isActive) kinds.push("left");
  return html`
    <div class=${kinds.filter(Boolean).join(" ")} data-kind=${state.kind} data-role=${role} data-state=${state.id}>
      <button type="button" class="state-name" onFocus=${() => point(state.id)} onBlur=${() => point(null)}
        onPointerEnter=${() => point(state.id)} onPointerLeave=${() => point(null)}>${state.id}</button>
      ${inside.length > 0 &&
      html`
        <div class="inside">
          ${inside.map((/** @type {any} */ each) => html`<${State} key=${each.id} state=${each} chart=${chart} marks=${marks} point=${point} />`)}
        </div>`}
    </div>`;
}

/**
 * Show a chart.
 *
 * @param {{chart: any, active: string[], last: any}} props `chart` is the body of /api/models/ID/chart, `last` the
 *   last transition or null.
 */
export function Chart({ chart, active, last }) {
  const [pointed, setPointed] = useState(/** @type {string | null} */ (null));
  const [width, setWidth] = useState(0);
  const area = useRef(/** @type {HTMLElement | null} */ (null));
  const canvas = useRef(/** @type {SVGSVGElement | null} */ (null));
  const chosen = pointed ?? active.at(-1) ?? "";
  const above = chart.states.find((/** @type {any} */ state) => state.id === chosen)?.above ?? [];
  const from = [chosen, ...above.toReversed()];
  const ways = chart.transitions.filter((/** @type {any} */ way) => from.includes(way.source));
  useEffect(() => {
    if (!area.current) return undefined;
    const observer = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width));
    observer.observe(area.current);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (area.current && canvas.current) drawArrows(area.current, canvas.current, ways, pointed ? null : last);
  }, [chart, chosen, last, width, String(active)]);
  const roots = chart.states.filter((/** @type {any} */ state) => !state.above.length);
  const marks = { active, pointed, last };
  return html`
    <div class="chart-scroll">
      <div id="chart" class="chart" ref=${area}>
        <svg ref=${canvas} aria-hidden="true"></svg>
        ${roots.map((/** @type {any} */ state) => html`<${State} key=${state.id} state=${state} chart=${chart} marks=${marks} point=${setPointed} />`)}
      </div>
    </div>
    <h4 id="ways-title">Transitions from ${chosen}</h4>
    <${Ways} chart=${chart} from=${from} ways=${ways} />`;
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

/** @param {HTMLElement} area @param {SVGSVGElement} canvas @param {any[]} ways @param {any} last */
function drawArrows(area, canvas, ways, last) {
  const whole = area.getBoundingClientRect();
  /** @param {string} id @returns {Box | null} */
  const place = (id) => {
    const box = [...area.querySelectorAll("[data-state]")].find((each) => each.getAttribute("data-state") === id);
    const at = box?.getBoundingClientRect();
    return at ? { x: at.x - whole.x, y: at.y - whole.y, width: at.width, height: at.height } : null;
  };
  const drawn = ways.map((way) => {
    const origins = new Set(way.labels.map((/** @type {any} */ label) => label.origin));
    return arrow(place(way.source), place(way.target), `way ${origins.size === 1 ? [...origins][0] : ""}`);
  });
  if (last && last.source !== last.target) drawn.push(arrow(place(last.source), place(last.target), "taken"));
  canvas.setAttribute("width", String(whole.width));
  canvas.setAttribute("height", String(whole.height));
  canvas.replaceChildren(...drawn.filter((each) => each !== null));
}

/** Draw an arrow from one box to another, bent a little so that its way back is seen too. @param {Box | null} from @param {Box | null} to @param {string} kind */
function arrow(from, to, kind) {
  if (!from || !to) return null;
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
  const group = document.createElementNS(SVG, "g");
  group.setAttribute("class", kind);
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", `M${tail.x},${tail.y}Q${control.x},${control.y} ${head.x},${head.y}`);
  const tip = document.createElementNS(SVG, "polygon");
  tip.setAttribute("points", `${head.x},${head.y} ${wing(0.4)} ${wing(-0.4)}`);
  group.append(line, tip);
  return group;
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
