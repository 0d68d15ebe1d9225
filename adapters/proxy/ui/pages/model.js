// One model: its chart, memory, conversations, starts and log.

import { html, useEffect, useState } from "../vendor/preact.js";
import { ROOT } from "../api.js";
import { Chart } from "../chart.js";
import { Conversations } from "../model/kv.js";
import { NEWEST, StartLog, Starts } from "../model/starts.js";
import { Facts, LoadButtons, moodOf, stateText, trouble, useJson, useSoon } from "../parts.js";
import { address, model } from "../router.js";
import { memory, models, useEvents } from "../store.js";

const MOST_STARTS = 50;

/** Effect of a request in words; the sum follows line by line. @type {Record<string, string>} */
const OUTCOMES = {
  serve: "A request is served at once.",
  start: "A request starts it: there is room.",
  swap: "A request starts it, and evicts",
  wait: "A request would wait:",
  reject: "A request is rejected:",
};

export default function Model() {
  const id = model.value;
  const row = models.value?.get(id);
  const path = `/api/models/${encodeURIComponent(id)}`;
  const [last, setLast] = useState(/** @type {any} */ (null));
  const chart = useJson(`${path}/chart`);
  const starts = useJson(`${path}/starts?limit=${MOST_STARTS}`);
  const readStarts = useSoon(starts.again, 150);
  const [logOf, setLogOf] = useState(NEWEST);
  useEffect(() => setLogOf(NEWEST), [id]);
  useEvents("transition", (value) => {
    if (value.model !== id) return;
    setLast(value);
    readStarts();
  }, [id]);
  if (!row) {
    const text = models.value ? "There is no such model." : "Waiting for the proxy…";
    return html`<h1 id="model-title" dir="auto">${id}</h1><p class="quiet">${text}</p>`;
  }
  /** Show the log of a start, and go there. @param {string} start */
  const chooseLog = (start) => {
    setLogOf(start);
    const log = document.getElementById("model-log");
    log?.scrollIntoView({ block: "center" });
    log?.focus();
  };
  const facts = [row.id, row.pid && `process ${row.pid}`, row.node && `on ${row.node}`, row.incarnation && `start ${row.incarnation}`];
  return html`
    <article id="model" aria-labelledby="model-title" class="model-page" data-key=${row.id} data-mood=${moodOf(row)}>
      <div class="title">
        <h1 id="model-title" dir="auto">${row.name || row.id}</h1>
        <span class="badge">${stateText(row)}</span>
        <p class="quiet"><${Facts} row=${row} /></p>
        <div class="buttons"><${LoadButtons} row=${row} /></div>
      </div>
      <p class="description" dir="auto">${row.description}</p>
      <div class="model-facts">
        <p id="model-facts" class="quiet">${facts.filter(Boolean).join(" · ")}</p>
        ${row.state === "ready" &&
        html`<a id="model-open" target="_blank" rel="noreferrer" href=${`${ROOT}/upstream/${encodeURIComponent(row.id)}/`}>Open its own page</a>`}
        <a href=${address("playground", { model: row.id })}>Chat</a>
        <a id="model-close" href=${address("models")}>All models</a>
      </div>
      <p class="trouble">${trouble(row)}</p>
      <section class="card" aria-labelledby="chart-title">
        <h2 id="chart-title">Life</h2>
        <p id="chart-now" class="quiet" aria-live="polite">${stateText(row)}${row.cause && `: ${row.cause}`}</p>
        ${chart.problem && html`<p class="notice">The chart is not available: ${chart.problem}</p>`}
        ${chart.value &&
        html`<${Chart} chart=${chart.value} active=${row.configuration ?? []} last=${last ?? starts.value?.data[0]?.transitions.at(-1) ?? null} />`}
      </section>
      <${ModelMemory} path=${path} />
      <${Conversations} key=${path} id=${id} path=${path} />
      <${Settings} path=${path} />
      <${Starts} key=${id} starts=${starts.value?.data ?? []} problem=${starts.problem} isKnown=${starts.value !== null} choose=${chooseLog} />
      <${StartLog} id=${id} starts=${starts.value?.data ?? (starts.problem ? [] : null)} chosen=${logOf} choose=${setLogOf} />
    </article>`;
}

/** What a request would cause, where memory is a condition. @param {{path: string}} props */
function ModelMemory({ path }) {
  const state = memory.value;
  const [version, setVersion] = useState(0);
  const again = useSoon(() => setVersion((old) => old + 1), 200);
  useEvents("memory", again);
  const isOn = Boolean(state?.pools.length);
  const { value } = useJson(isOn ? `${path}/explain` : "", version);
  if (!isOn || !value) return null;
  const more = value.outcome === "swap" ? `${value.evict.join(", ")}.` : value.why;
  /** @type {string[]} */
  const lines = value.memory ?? ["Memory is no condition for it."];
  return html`
    <section id="model-memory" class="card" aria-labelledby="model-memory-title">
      <h2 id="model-memory-title">Memory</h2>
      <p id="model-memory-outcome">${`${OUTCOMES[value.outcome]} ${more}`.trim()}</p>
      <ul id="model-memory-sum" class="sum">${lines.map((line, index) => html`<li key=${index}>${line}</li>`)}</ul>
    </section>`;
}

/** The configuration in force, with the file and line of each value; read when it is opened. @param {{path: string}} props */
function Settings({ path }) {
  const [isOpen, setOpen] = useState(false);
  const { value, problem, again } = useJson(isOpen ? `${path}/config` : "");
  useEvents("config", again);
  return html`
    <details class="card" id="settings" onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}>
      <summary>Configuration</summary>
      ${problem && html`<p class="notice">${problem}</p>`}
      <div class="scroll" tabindex="0" role="region" aria-label="Configuration">
        <table>
          <thead><tr><th>Key</th><th>Value</th><th>From</th></tr></thead>
          <tbody>
            ${(value?.settings ?? []).map(
              (/** @type {any} */ row) => html`
                <tr key=${row.key}><td>${row.key}</td><td class="why"><code>${row.value}</code></td>
                  <td class="quiet"><code>${`${row.file.split("/").at(-1)}:${row.line}`}</code></td></tr>`,
            )}
          </tbody>
        </table>
      </div>
    </details>`;
}
