// The machine: devices, memory pools, load over time, and the nodes of a cluster.

import { html, useEffect } from "../vendor/preact.js";
import { command } from "../api.js";
import { count, size } from "../format.js";
import { Memory } from "../memory.js";
import { useJson } from "../parts.js";
import { Plot } from "../plot.js";
import { address } from "../router.js";
import { isVisible, memory } from "../store.js";

const LOAD_EVERY_MS = 5000;

export default function System() {
  const version = useJson("/api/version").value;
  return html`
    <section id="page-system" aria-labelledby="system-title">
      <div class="title">
        <h1 id="system-title">System</h1>
        <p class="quiet">${version && `swapchart ${version.version}`}</p>
      </div>
      <${Devices} />
      <${Memory} state=${memory.value} />
      <${Learned} />
      <${Load} />
      <${Nodes} />
    </section>`;
}

function Devices() {
  const { value, problem } = useJson("/api/hardware");
  if (!value) return html`<section class="card"><h2>Devices</h2><p class="quiet">${problem || "Looking…"}</p></section>`;
  const { cpu, operating_system: os, memory: ram, accelerators } = value;
  const cores = [cpu.physical_core_count && `${cpu.physical_core_count} cores`, cpu.logical_thread_count && `${cpu.logical_thread_count} threads`];
  return html`
    <section class="card" aria-labelledby="devices-title">
      <h2 id="devices-title">Devices</h2>
      <dl id="devices" class="facts-list">
        <dt>Processor</dt><dd>${[cpu.model ?? cpu.vendor, ...cores].filter(Boolean).join(", ") || "unknown"}</dd>
        <dt>Memory</dt><dd>${ram.capacity_bytes === null ? "unknown" : size(ram.capacity_bytes)}</dd>
        <dt>System</dt><dd>${[os.name ?? os.family, os.version, os.kernel].filter(Boolean).join(", ")} (${value.environment.kind})</dd>
        ${accelerators.map(
          (/** @type {any} */ gpu) => html`
            <dt key=${`name ${gpu.index}`}>GPU ${gpu.index}</dt>
            <dd key=${gpu.index}>${[gpu.model, gpu.architecture, gpu.memory.capacity_bytes && size(gpu.memory.capacity_bytes), gpu.driver && `driver ${gpu.driver}`]
              .filter(Boolean).join(", ")}</dd>`,
        )}
      </dl>
      ${!accelerators.length && html`<p class="quiet">No GPU was found.</p>`}
    </section>`;
}

/** What earlier runs have shown of the memory of each launch. */
function Learned() {
  const rows = memory.value?.learned ?? [];
  if (!rows.length) return null;
  return html`
    <details class="card" id="learned">
      <summary>Learned memory of ${rows.length} launches</summary>
      <div class="scroll" tabindex="0" role="region" aria-label="Learned memory">
        <table>
          <thead><tr><th>Model</th><th>Pool</th><th class="number">Next start reserves</th><th class="number">Highest</th><th class="number">Runs</th><th>Measured</th>
            <th><span class="unseen">Actions</span></th></tr></thead>
          <tbody>
            ${rows.map(
              (/** @type {any} */ row) => html`
                <tr key=${`${row.launch} ${row.pool}`}>
                  <td>${row.model}</td><td>${row.pool}</td><td class="number">${size(row.claim)}</td><td class="number">${size(row.highest)}</td>
                  <td class="number">${row.runs}</td><td>${row.method}</td>
                  <td><button type="button" aria-label=${`Forget the memory of ${row.model}`}
                    onClick=${() => command("DELETE", `/api/memory/learned/${encodeURIComponent(row.model)}`)}>Forget</button></td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
    </details>`;
}

function Load() {
  const { value, problem, again } = useJson("/api/performance");
  const isSeen = isVisible.value;
  useEffect(() => {
    if (!isSeen) return undefined;
    const timer = setInterval(again, LOAD_EVERY_MS);
    return () => clearInterval(timer);
  }, [isSeen]);
  /** @type {any[]} */
  const samples = value?.sys_stats ?? [];
  const gpus = byGpu(value?.gpu_stats ?? []);
  const times = samples.map((sample) => Date.parse(sample.timestamp) / 1000);
  const cpu = samples.map((sample) => mean(sample.cpu_util_per_core));
  const used = samples.map((sample) => (100 * sample.mem_used_mb) / Math.max(sample.mem_total_mb, 1));
  return html`
    <section class="card" aria-labelledby="load-title">
      <h2 id="load-title">Load in the last hour</h2>
      ${!samples.length && html`<p class="quiet">${problem || "No samples: the key performance of the configuration switches them on."}</p>`}
      ${samples.length > 0 &&
      html`
        <${Plot} label="Use of processor and memory in percent" unit="%" max=${100} times=${times}
          series=${[{ name: "processor", values: cpu }, { name: "memory", values: used }]} />
        <p class="quiet">Now: processor ${count(Math.round(cpu.at(-1) ?? 0))} %, memory ${count(Math.round(used.at(-1) ?? 0))} %</p>`}
      ${[...gpus].map(
        ([name, rows]) => html`
          <h3 key=${`title ${name}`}>${name}</h3>
          <${Plot} key=${name} label=${`Use of ${name} in percent`} unit="%" max=${100} times=${rows.map((row) => Date.parse(row.timestamp) / 1000)}
            series=${[
              { name: "compute", values: rows.map((row) => row.gpu_util_pct) },
              { name: "memory", values: rows.map((row) => (row.mem_total_mb ? (100 * row.mem_used_mb) / row.mem_total_mb : null)) },
            ]} />`,
      )}
    </section>`;
}

/** @param {number[]} values */
const mean = (values) => values.reduce((sum, each) => sum + each, 0) / Math.max(values.length, 1);

/** @param {any[]} rows @returns {Map<string, any[]>} */
function byGpu(rows) {
  const found = new Map();
  for (const row of rows) {
    const name = `GPU ${row.id} ${row.name}`;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(row);
  }
  return found;
}

function Nodes() {
  const { value, again } = useJson("/api/nodes");
  if (!value || (value.nodes.length <= 1 && !Object.keys(value.engines_down).length)) return null;
  /** @param {string} name */
  const free = (name) => command("POST", `/api/nodes/free/${encodeURIComponent(name)}`).then(again);
  return html`
    <section class="card" aria-labelledby="nodes-title">
      <h2 id="nodes-title">Nodes</h2>
      ${Object.entries(value.engines_down).map(([engine, why]) => html`<p key=${engine} class="notice">${engine} does not respond: ${why}</p>`)}
      <div class="scroll" tabindex="0" role="region" aria-label="Nodes">
        <table id="nodes">
          <thead><tr><th>Node</th><th>Address</th><th>State</th><th>Memory</th><th>Models</th><th><span class="unseen">Actions</span></th></tr></thead>
          <tbody>
            ${value.nodes.map(
              (/** @type {any} */ node) => html`
                <tr key=${node.name}>
                  <td>${node.name}${node.own && " (this machine)"}</td><td>${node.address}</td>
                  <td class=${node.alive ? "good" : "bad"}>${node.alive ? "up" : "down"}</td>
                  <td>${node.pools.map((/** @type {any} */ pool) => html`<div key=${pool.name}>${pool.name}: ${size(Math.max(pool.free, 0))} of ${size(pool.capacity)} free</div>`)}</td>
                  <td>${node.models.map((/** @type {any} */ each) => html`<div key=${each.model}><a href=${address("models", { model: each.model })}>${each.model}</a> ${each.state}</div>`)}
                    ${node.lost.map((/** @type {any} */ each) => html`<div key=${each.model} class="bad">${each.model} may still run there</div>`)}</td>
                  <td>${node.lost.length > 0 && html`<button type="button" onClick=${() => free(node.name)}>Nothing runs there any more</button>`}</td>
                </tr>`,
            )}
          </tbody>
        </table>
      </div>
    </section>`;
}
