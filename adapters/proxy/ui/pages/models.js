// The models: those that run come first, then all others by name.

import { html, useState } from "../vendor/preact.js";
import { command } from "../api.js";
import { byName } from "../format.js";
import { Memory } from "../memory.js";
import { Facts, LoadButtons, moodOf, stateText, trouble } from "../parts.js";
import { address } from "../router.js";
import { connection, memory, models } from "../store.js";

/** @typedef {import("../types.js").ModelStatus} ModelStatus */

/** Return 0 for a model that runs, 1 for one that is starting or stopping, 2 for all others. @param {ModelStatus} row */
function rank(row) {
  if (row.state === "ready" || row.state === "sleeping") return 0;
  return row.state === "stopped" || row.state === "shutdown" ? 2 : 1;
}

/** @param {ModelStatus} row @param {string} wanted in lower case */
function isFound(row, wanted) {
  const texts = [row.id, row.name, row.description, ...(row.aliases ?? [])];
  return texts.some((text) => text.toLowerCase().includes(wanted));
}

/** @param {{row: ModelStatus}} props */
function Model({ row }) {
  const others = [row.name ? row.id : "", ...(row.aliases ?? [])].filter(Boolean);
  return html`
    <li class="model" data-key=${row.id} data-mood=${moodOf(row)}>
      <span class="badge">${stateText(row)}</span>
      <div class="about">
        <a class="name" dir="auto" href=${address("models", { model: row.id })}>${row.name || row.id}</a>
        <span class="quiet aliases">${others.join(", ") + (row.unlisted ? " (unlisted)" : "")}</span>
        <p class="description" dir="auto">${row.description}</p>
        <p class="trouble">${trouble(row)}</p>
      </div>
      <${Facts} row=${row} />
      <div class="buttons">
        <a class="button" aria-label=${`Chat with ${row.id}`} href=${address("playground", { model: row.id })}>Chat</a>
        <${LoadButtons} row=${row} />
      </div>
    </li>`;
}

export default function Models() {
  const [search, setSearch] = useState("");
  const known = models.value;
  if (!known) return html`<h1>Models</h1><p class="quiet">${connection.value.why || "Waiting for the proxy…"}</p>`;
  const rows = [...known.values()];
  const own = rows.filter((row) => !row.peerID);
  const peers = rows.filter((row) => row.peerID);
  const wanted = search.trim().toLowerCase();
  const shown = own
    .filter((row) => isFound(row, wanted))
    .sort((a, b) => rank(a) - rank(b) || byName(a.name || a.id, b.name || b.id));
  const ready = own.filter((row) => row.state === "ready").length;
  return html`
    <section id="page-models" aria-labelledby="models-title">
      <div class="title">
        <h1 id="models-title">Models</h1>
        <p id="summary" class="quiet">${ready} of ${own.length} ready</p>
        <label>Search <input id="model-search" type="search" autocomplete="off" value=${search}
          onInput=${(/** @type {any} */ event) => setSearch(event.target.value)} /></label>
        <button id="unload-all" type="button" onClick=${() => command("POST", "/api/models/unload")}>Unload all</button>
      </div>
      <ul id="models" class="models">${shown.map((row) => html`<${Model} key=${row.id} row=${row} />`)}</ul>
      ${!own.length && html`<p id="no-models" class="quiet">No models are configured.</p>`}
      ${own.length > 0 && !shown.length && html`<p class="quiet" role="status">No model matches.</p>`}
      <${Memory} state=${memory.value} />
      ${peers.length > 0 &&
      html`
        <details id="peers">
          <summary>Models of peers</summary>
          <ul id="peer-list" class="plain">${peers.map((row) => html`<li key=${row.id}>${row.name}</li>`)}</ul>
        </details>`}
    </section>`;
}
