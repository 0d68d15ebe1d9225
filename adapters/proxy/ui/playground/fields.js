// Forms of the playground: fields, and a hook that runs one request at a time.

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { messageOf, seconds } from "../format.js";

/** @param {{id: string, label: string, value: string, set: (value: string) => void, min: string, max: string, step: string}} props */
export function NumberField({ id, label, value, set, min, max, step }) {
  return html`
    <label>${label} <input id=${id} type="number" min=${min} max=${max} step=${step} placeholder="default" value=${value}
      onInput=${(/** @type {any} */ event) => set(event.target.value)} /></label>`;
}

/** @param {{id: string, label: string, value: string, set: (value: string) => void, rows?: number}} props */
export function TextField({ id, label, value, set, rows = 3 }) {
  /** @param {any} event */
  const type = (event) => set(event.target.value);
  return html`
    <label class="wide" for=${id}>${label}</label>
    ${rows > 1
      ? html`<textarea id=${id} rows=${rows} value=${value} onInput=${type}></textarea>`
      : html`<input id=${id} type="text" value=${value} onInput=${type} />`}`;
}

/**
 * Run `work` when the form is submitted; the last result stays until the next one.
 *
 * @param {(signal: AbortSignal) => Promise<any>} work
 */
export function useRun(work) {
  const [state, setState] = useState({ isBusy: false, value: /** @type {any} */ (null), problem: "", took: "" });
  const aborter = useRef(/** @type {AbortController | null} */ (null));
  useEffect(() => () => aborter.current?.abort(), []);
  /** @param {Event} event */
  const submit = async (event) => {
    event.preventDefault();
    const own = (aborter.current = new AbortController());
    const began = performance.now();
    setState((old) => ({ ...old, isBusy: true, problem: "" }));
    try {
      const value = await work(own.signal);
      setState({ isBusy: false, value, problem: "", took: seconds((performance.now() - began) / 1000) });
    } catch (error) {
      const problem = own.signal.aborted ? "stopped" : messageOf(error);
      setState({ isBusy: false, value: null, problem, took: "" });
    }
  };
  return { ...state, submit, stop: () => aborter.current?.abort() };
}

/** Buttons and messages below a form. @param {{run: ReturnType<typeof useRun>, name: string, isDisabled?: boolean}} props */
export function RunButtons({ run, name, isDisabled = false }) {
  return html`
    <div class="buttons">
      <button type="submit" class="primary" disabled=${run.isBusy || isDisabled}>${name}</button>
      <button type="button" disabled=${!run.isBusy} onClick=${run.stop}>Stop</button>
      <span class="quiet" role="status">${run.isBusy ? "Under way…" : run.took && `took ${run.took}`}</span>
    </div>
    ${run.problem && html`<p class="bad" role="alert">${run.problem}</p>`}`;
}
