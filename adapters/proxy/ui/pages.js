// The pages: each is a module of its own, which is loaded when it is shown first.
//
// A module's default export is the page as a component; it gets the address's query as `query`.

/**
 * @typedef {object} PageEntry
 * @property {string} id Name in the address: /ui/ID.
 * @property {string} title In the navigation and the tab's title.
 * @property {() => Promise<{default: (props: {query: URLSearchParams}) => any}>} load
 * @property {boolean} [isHidden] Not in the navigation.
 */

/**
 * Return the page's module; what it imports is loaded beside it and not after it.
 *
 * @param {Promise<{default: (props: {query: URLSearchParams}) => any}>} page
 * @param {Promise<unknown>[]} others
 */
function together(page, ...others) {
  for (const other of others) other.catch(() => {}); // the page fails by itself then
  return page;
}

/** @type {PageEntry[]} */
export const PAGES = [
  { id: "timeline", title: "Timeline", load: () => import("./pages/timeline.js") },
  { id: "models", title: "Models", load: () => together(import("./pages/models.js"), import("./memory.js")) },
  { id: "model", title: "Model", load: () => import("./pages/model.js"), isHidden: true },
  { id: "requests", title: "Requests", load: () => together(import("./pages/requests.js"), import("./requests/row.js"), import("./requests/filters.js")) },
  { id: "playground", title: "Playground", load: () => import("./pages/playground.js") },
  { id: "logs", title: "Logs", load: () => import("./pages/logs.js") },
  { id: "system", title: "System", load: () => import("./pages/system.js") },
  { id: "configuration", title: "Configuration", load: () => import("./pages/configuration.js") },
  { id: "connect", title: "Connect", load: () => import("./pages/connect.js") },
];

/** The page at /ui/. */
export const HOME = PAGES[0];

/** Return the entry of a route: a model's page has the address of the list with ?model=. @param {import("./router.js").Route} route */
export function entryOf({ page, query }) {
  const id = page === "models" && query.get("model") ? "model" : page;
  return PAGES.find((entry) => entry.id === id) ?? HOME;
}
