// A chart over time; uPlot and its style are loaded when the first one is shown.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ROOT } from "./api.js";
import { messageOf } from "./format.js";

/** @type {Promise<any> | null} */
let loading = null;

/** @returns {Promise<any>} The class uPlot. */
export function loadUplot() {
  loading ??= new Promise((resolve, reject) => {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = `${ROOT}/ui/vendor/uplot.css`;
    document.head.append(style);
    import("./vendor/uplot.js").then((module) => resolve(module.default), reject);
  });
  return loading;
}

/** Return the value of a color of the style sheet. @param {string} name */
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * Show series over time.
 *
 * @param {{label: string, unit: string, times: number[], series: {name: string, values: (number | null)[]}[], max?: number}} props
 *   `times` are seconds since 1970; `label` says in words what is shown.
 */
export function Plot({ label, unit, times, series, max }) {
  const place = useRef(/** @type {HTMLElement | null} */ (null));
  const plot = useRef(/** @type {any} */ (null));
  const [problem, setProblem] = useState("");
  const data = [times, ...series.map((each) => each.values)];
  const names = series.map((each) => each.name).join("\n");
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    let isWanted = true;
    /** @type {ResizeObserver | undefined} */
    let observer;
    loadUplot().then((Uplot) => {
      const element = place.current;
      if (!isWanted || !element) return;
      const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
      plot.current = new Uplot(
        {
          width: Math.max(element.clientWidth, 200), height: 180, legend: { live: false },
          scales: { y: { range: (/** @type {any} */ _u, /** @type {number} */ _low, /** @type {number} */ high) => [0, max ?? Math.max(high * 1.1, 1)] } },
          axes: [axis, { ...axis, size: 60, values: (/** @type {any} */ _u, /** @type {number[]} */ ticks) => ticks.map((tick) => `${tick} ${unit}`) }],
          series: [{}, ...series.map((each, index) => ({ label: each.name, stroke: color(`--share-${(index % 8) + 1}`), width: 1.5 }))],
        },
        latest.current,
        element,
      );
      observer = new ResizeObserver(() => plot.current?.setSize({ width: Math.max(element.clientWidth, 200), height: 180 }));
      observer.observe(element);
    }, (error) => setProblem(messageOf(error)));
    return () => {
      isWanted = false;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names, unit, max]);
  useEffect(() => plot.current?.setData(data), [times]);
  if (problem) return html`<p class="notice">The chart cannot be shown: ${problem}</p>`;
  return html`<div class="plot" role="img" aria-label=${label} ref=${place}></div>`;
}
