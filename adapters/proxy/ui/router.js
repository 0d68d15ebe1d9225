// Addresses of pages: /ui/PAGE?QUERY, below whatever path the proxy is served at.

import { computed, signal } from "./vendor/preact.js";
import { ROOT } from "./api.js";

/** Names of llama-swap's pages and of earlier versions -> their names here. @type {Record<string, string>} */
const OTHER_NAMES = { activity: "requests", "": "home" };

/** @typedef {{page: string, query: URLSearchParams}} Route */

/** @returns {Route} The page that the address names; llama-swap's addresses (#/models) work too. */
function read() {
  const inHash = location.hash.match(/^#\/(\w+)/);
  const inPath = location.pathname.slice(ROOT.length).match(/^\/ui\/(\w+)/);
  const name = (inHash ?? inPath ?? ["", ""])[1];
  return { page: OTHER_NAMES[name] ?? name, query: new URLSearchParams(location.search) };
}

export const route = signal(read());
/** The model that the address names; empty without one. */
export const model = computed(() => route.value.query.get("model") ?? "");

/** Return the address of a page. @param {string} page @param {Record<string, string>} [query] */
export function address(page, query = {}) {
  const text = new URLSearchParams(query).toString();
  return `${ROOT}/ui/${page}${text && `?${text}`}`;
}

/** Show an address of this page. @param {string} to @param {{replace?: boolean}} [given] */
export function go(to, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  route.value = read();
}

/** Follow links of the page without loading it again. */
export function start() {
  document.addEventListener("click", (event) => {
    const link = /** @type {Element} */ (event.target).closest?.("a[href]");
    if (!(link instanceof HTMLAnchorElement) || event.defaultPrevented) return;
    if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    if (link.target || link.origin !== location.origin || !link.pathname.startsWith(`${ROOT}/ui/`)) return;
    if (link.hash && link.pathname === location.pathname && link.search === location.search) return;
    event.preventDefault();
    go(link.href);
    document.getElementById("main")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  });
  const read_ = () => (route.value = read());
  addEventListener("popstate", read_);
  addEventListener("hashchange", read_);
}
