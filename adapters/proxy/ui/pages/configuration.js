// The configuration in force: its files and problems, what a reload would change, and the reload.

import { html, useState } from "../vendor/preact.js";
import { Failure, sendJson } from "../api.js";
import { clockTime, messageOf, seconds } from "../format.js";
import { useJson } from "../parts.js";
import { address } from "../router.js";
import { heldBack, useEvents } from "../store.js";

/** @typedef {{title: string, plan: any, problems: any[], error: string}} Outcome Of a plan or a reload. */

export default function Configuration() {
  const facts = useJson("/api/config");
  const [outcome, setOutcome] = useState(/** @type {Outcome | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  useEvents("config", facts.again);
  /** @param {string} title @param {string} path @param {(value: any) => any} planOf */
  const ask = async (title, path, planOf) => {
    setBusy(true);
    try {
      const value = await (await sendJson("POST", path)).json();
      setOutcome({ title, plan: planOf(value), problems: value.problems ?? [], error: "" });
    } catch (error) {
      const problems = error instanceof Failure ? (error.detail?.problems ?? []) : [];
      setOutcome({ title, plan: null, problems, error: messageOf(error) });
    }
    setBusy(false);
    facts.again();
  };
  const value = facts.value;
  const last = value?.last_reload;
  return html`
    <section id="page-configuration" aria-labelledby="configuration-title">
      <div class="title">
        <h1 id="configuration-title">Configuration</h1>
        <p class="quiet">${value && `${value.models.length} models, ${value.reloads} reloads since the start`}</p>
        <button id="plan" type="button" disabled=${isBusy} onClick=${() => ask("Changes that a reload would make", "/api/config/plan", (plan) => plan)}>Plan</button>
        <button id="reload" type="button" class="primary" disabled=${isBusy}
          onClick=${() => ask("Reload", "/api/config/reload", (report) => report.plan)}>${heldBack.value ? "Reload in spite of it" : "Reload"}</button>
      </div>
      ${facts.problem && html`<p class="notice" role="alert">${facts.problem}</p>`}
      <div role="status">${outcome && html`<${Result} outcome=${outcome} />`}</div>
      ${value &&
      html`
        <section class="card" aria-labelledby="files-title">
          <h2 id="files-title">Files</h2>
          <ul id="files" class="sum">${value.files.map((/** @type {string} */ file) => html`<li key=${file}>${file}</li>`)}</ul>
          ${!value.files.length && html`<p class="quiet">None: the configuration was given by the program.</p>`}
        </section>
        <section class="card" aria-labelledby="warnings-title">
          <h2 id="warnings-title">Problems</h2>
          <${Problems} id="warnings" problems=${value.warnings} />
        </section>
        ${last &&
        html`
          <section class="card" aria-labelledby="last-title">
            <h2 id="last-title">Last reload</h2>
            <p id="last-reload">${clockTime(last.at * 1000)}, ${last.why}: <span class=${last.ok ? "good" : "bad"}>${last.ok ? "applied" : "not applied"}</span>
              ${" "}after ${seconds(last.seconds)}</p>
            ${last.problems.length > 0 && html`<${Problems} id="last-problems" problems=${last.problems} />`}
          </section>`}`}
    </section>`;
}

/** @param {{outcome: Outcome}} props */
function Result({ outcome: { title, plan, problems, error } }) {
  return html`
    <section id="outcome" class="card" aria-labelledby="outcome-title">
      <h2 id="outcome-title">${title}</h2>
      ${error && html`<p class="bad">${error}</p>`}
      ${problems.length > 0 && html`<${Problems} id="outcome-problems" problems=${problems} />`}
      ${plan && !plan.changed && html`<p>Nothing has changed.</p>`}
      ${plan?.changed && html`<${Plan} plan=${plan} />`}
    </section>`;
}

/** @param {{plan: any}} props */
function Plan({ plan }) {
  return html`
    <div class="scroll">
      <table id="plan-models">
        <thead><tr><th>Model</th><th>Change</th><th>Keys</th><th>Now</th><th>Effect</th></tr></thead>
        <tbody>
          ${plan.models.map(
            (/** @type {any} */ row) => html`
              <tr key=${row.id}>
                <td><a href=${address("models", { model: row.id })}>${row.id}</a></td><td>${row.change.replaceAll("_", " ")}</td>
                <td>${row.keys.join(", ")}</td><td>${row.state}</td><td class="why">${row.effect}</td>
              </tr>`,
          )}
          ${plan.settings.map(
            (/** @type {any} */ row) => html`
              <tr key=${`setting ${row.key}`}><td class="quiet">proxy</td><td>setting</td><td>${row.key}</td><td></td>
                <td>${row.applies === "restart" ? "when swapchart is started again" : "at once"}</td></tr>`,
          )}
        </tbody>
      </table>
    </div>
    ${plan.memory.length > 0 && html`<ul class="plain">${plan.memory.map((/** @type {string} */ line) => html`<li key=${line}>${line}</li>`)}</ul>`}
    <p class="quiet">${plan.unchanged.length} models are unchanged.</p>`;
}

/** Problems with file and line. @param {{id: string, problems: any[]}} props */
function Problems({ id, problems }) {
  if (!problems.length) return html`<p class="quiet">None.</p>`;
  return html`
    <ul id=${id} class="problems">
      ${problems.map(
        (problem, index) => html`
          <li key=${index} class=${problem.severity === "error" ? "bad" : ""}>
            <code>${[problem.file, problem.line || ""].filter(Boolean).join(":")}</code> <strong>${problem.path}</strong>
            <span> ${problem.message}</span></li>`,
      )}
    </ul>`;
}
