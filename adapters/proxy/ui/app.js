// The web UI's frame: header, navigation, notices and dialogs around the page that is shown.
//
// Names, descriptions, errors and logs come from models and their clients. Preact puts texts into
// the page as text; nothing here is ever read as HTML.

import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./vendor/preact.js";
import { command, declineKey, keyWanted, rejected, ROOT, said, useKey } from "./api.js";
import { messageOf } from "./format.js";
import { entryOf, HOME, PAGES } from "./pages.js";
import { address, model, route, start } from "./router.js";
import { begin, connection, epoch, flights, heldBack, profiles } from "./store.js";

function Header() {
  const current = entryOf(route.value);
  const shown = current.id === "model" ? "models" : current.id;
  return html`
    <header>
      <a class="brand" href=${address("")}><img src=${`${ROOT}/ui/favicon.svg`} alt="" width="24" height="24" />swapchart</a>
      <nav aria-label="Pages">
        ${PAGES.filter((page) => !page.isHidden).map(
          (page) => html`
            <a key=${page.id} href=${address(page === HOME ? "" : page.id)} aria-current=${page.id === shown ? "page" : null}>
              ${page.title}${page.id === "requests" && html`<${Busy} />`}
            </a>`,
        )}
      </nav>
      <${Profile} />
      <span id="connection" class="connection" role="status" data-state=${connection.value.state} title=${connection.value.why}>
        ${connection.value.state === "denied" ? "no access" : connection.value.state}
      </span>
      ${connection.value.state === "denied" &&
      html`<button id="ask-key" type="button" onClick=${() => (keyWanted.value = connection.value.why)}>Give a key</button>`}
    </header>`;
}

function Busy() {
  const { size } = flights.value;
  return size > 0 && html` <span id="busy" class="count">${size}</span>`;
}

function Profile() {
  const { active, profiles: all } = profiles.value;
  if (!all.length) return null;
  /** @param {any} event */
  const change = (event) => command("PUT", "/api/profiles/active", { name: event.target.value || null });
  return html`
    <label id="profile-field">Profile
      <select id="profile" value=${active ?? ""} onChange=${change}>
        <option value="">none</option>
        ${all.map(({ id }) => html`<option key=${id} value=${id}>${id}</option>`)}
      </select>
    </label>`;
}

function Notices() {
  const change = heldBack.value;
  return html`
    ${rejected.value && html`<p id="refused" class="notice" role="alert">${rejected.value}</p>`}
    ${change &&
    html`
      <p id="held-back" class="notice" role="alert"><strong>The configuration file changed, and was not applied.</strong>${" "}
        <span id="held-back-message">${change.message}</span> From here:${" "}
        <code id="held-back-command">${`swapchart config reload --url ${location.origin}${ROOT}`}</code></p>`}`;
}

/** Show the page of the address, once its module is there; one that failed is loaded again when the proxy is back. */
function Page() {
  const { query } = route.value;
  const entry = entryOf(route.value);
  const [loaded, setLoaded] = useState(/** @type {{id: string, Component: any} | null} */ (null));
  const [problem, setProblem] = useState("");
  const [error, resetError] = useErrorBoundary();
  const tries = loaded?.id === entry.id ? 0 : epoch.value;
  useEffect(() => {
    let isWanted = true;
    resetError();
    setProblem("");
    entry.load().then(
      (module) => isWanted && setLoaded((old) => (old?.id === entry.id ? old : { id: entry.id, Component: module.default })),
      (reason) => isWanted && setProblem(messageOf(reason)),
    );
    return () => {
      isWanted = false;
    };
  }, [entry.id, tries]);
  const name = entry.id === "model" ? model.value : entry.title;
  document.title = `${name} · swapchart`;
  if (error) return html`<p class="notice" role="alert">This page cannot be shown: ${messageOf(error)}</p>`;
  if (problem) return html`<p class="notice" role="alert">This page is loaded when the proxy responds: ${problem}</p>`;
  if (loaded?.id !== entry.id) return html`<p class="quiet">Loading…</p>`;
  return html`<${loaded.Component} key=${name} query=${query} />`;
}

function KeyDialog() {
  const why = keyWanted.value;
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  useEffect(() => {
    if (why && !dialog.current?.open) dialog.current?.showModal();
    if (!why) dialog.current?.close();
  }, [why]);
  /** @param {Event} event */
  const submit = (event) => {
    event.preventDefault();
    if (!input.current) return;
    useKey(input.current.value);
    input.current.value = "";
    begin();
  };
  return html`
    <dialog id="key-dialog" ref=${dialog} aria-labelledby="key-title" onCancel=${declineKey}>
      <form id="key-form" onSubmit=${submit}>
        <h2 id="key-title">An API key is needed</h2>
        <p id="key-why">${why}</p>
        <label>API key <input id="key" ref=${input} type="password" autocomplete="off" spellcheck=${false} required /></label>
        <p class="quiet">Kept in this tab until it is closed.</p>
        <div class="buttons">
          <button type="submit" class="primary">Use this key</button>
          <button type="button" onClick=${declineKey}>Go on without</button>
        </div>
      </form>
    </dialog>`;
}

function App() {
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <${Header} />
    <main id="main" tabindex="-1"><${Notices} /><${Page} /></main>
    <div id="said" class="said" role="alert">${said.value}</div>
    <${KeyDialog} />`;
}

entryOf(route.value).load().catch(() => {}); // while the frame is drawn; `Page` reports a failure
start();
const root = document.getElementById("app");
if (root) render(html`<${App} />`, root);
if (!document.hidden) begin();
