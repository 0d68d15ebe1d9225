// Saved conversations of a model: settings, sizes, whether restores help, and the conversations.

import { html, useEffect, useState } from "../vendor/preact.js";
import { command } from "../api.js";
import { clockTime, count, seconds, size } from "../format.js";
import { useJson, useSoon, useTick } from "../parts.js";
import { isVisible, useEvents } from "../store.js";

/** @typedef {import("./types.js").SavedCache} SavedCache */

const STEP = 100;
const MOST = 1000;
const REREAD_MS = 5000;

/** @type {Record<string, string>} */
const VERDICTS = {
  unknown: "It is not known yet whether restores help.",
  works: "Restores help: the server reuses what is restored.",
  partial: "Restores help in part: the server reuses some of what is restored.",
  "no-op": "Restores do not help: the server reuses nothing, so nothing is saved any more.",
};

/** @param {{id: string, path: string}} props */
export function Conversations({ id, path }) {
  const [limit, setLimit] = useState(STEP);
  const [areWordsShown, setWords] = useState(false);
  const { value, problem, again } = useJson(`${path}/kv?limit=${limit}${areWordsShown ? "&words=true" : ""}`);
  const isKept = value?.mode === "keep";
  const soon = useSoon(() => isKept && again(), 1000); // what has changed is saved a moment later
  useEvents("transition", (event) => event.model === id && soon(), [id]);
  useEvents("activity", soon, [id]);
  useEffect(() => {
    if (!isKept) return undefined;
    const timer = setInterval(() => isVisible.value && soon(), REREAD_MS); // saves in idle moments have no event
    return () => clearInterval(timer);
  }, [isKept]);
  /** @type {SavedCache | null} */
  const cache = value;
  return html`
    <section id="kv" class="card" aria-labelledby="kv-title">
      <h2 id="kv-title">Saved conversations</h2>
      ${problem && html`<p class="notice">${problem}</p>`}
      ${cache?.mode === "off" && html`<p class="quiet">Its prompt cache is lost when it stops: <code>kv</code> is off.</p>`}
      ${cache?.mode === "engine" && html`<p class="quiet">Its server keeps its prompt cache itself: <code>kv: engine</code>.</p>`}
      ${cache?.mode === "keep" && html`<${Summary} cache=${cache} />`}
      ${cache !== null && cache.total > 0 && html`
        <${Actions} cache=${cache} path=${path} areWordsShown=${areWordsShown} setWords=${setWords} again=${again} />
        <${Table} cache=${cache} areWordsShown=${areWordsShown} />
        <p class="more">
          <span class="quiet">${cache.total > cache.conversations.length && `The ${count(cache.conversations.length)} of ${count(cache.total)} that were used last. `}</span>
          ${cache.total > limit && limit < MOST && html`<button type="button" onClick=${() => setLimit(limit === STEP ? 500 : MOST)}>Show more</button>`}
        </p>`}
    </section>`;
}

/** @param {{cache: SavedCache}} props */
function Summary({ cache }) {
  const { facts, limits } = cache;
  const quota = limits?.library_bytes ?? limits?.max_bytes;
  const kept = `${count(cache.total)} ${cache.total === 1 ? "conversation" : "conversations"}, ${count(cache.tokens)} tokens, ${size(cache.bytes)}${quota ? ` of at most ${size(quota)}` : ""}`;
  const done = [
    facts?.saves !== undefined && `${count(facts.saves + (facts.checkpoints ?? 0))} saves`,
    facts?.restores !== undefined && `${count(facts.restores)} restores of ${count(facts.restored_tokens_total)} tokens`,
    facts?.failures ? `${count(facts.failures)} failures` : "",
  ].filter(Boolean);
  /** @type {[string, unknown][]} */
  const rows = [
    ["Kept", kept],
    ["Time saved", facts?.library_saved_s ? `about ${seconds(facts.library_saved_s)} of reading prompts, by the library` : ""],
    ["Since the start of the proxy", done.join(", ")],
    ["How", limits && ways(limits)],
    ["Directory", cache.directory && html`<code>${cache.directory}</code>${cache.memory_directory && html` and, in memory, <code>${cache.memory_directory}</code>`}`],
  ];
  return html`
    ${facts?.problem && html`<p id="kv-problem" class="notice">${facts.problem}</p>`}
    ${facts?.verdict && !facts.problem && html`<p id="kv-verdict" class=${facts.verdict === "no-op" ? "bad" : ""}>${VERDICTS[facts.verdict]}</p>`}
    <dl id="kv-facts" class="facts-list">
      ${rows.filter(([, text]) => text).map(([name, text]) => html`<dt key=${name}>${name}</dt><dd>${text}</dd>`)}
    </dl>`;
}

/** Return in words what is saved when. @param {NonNullable<SavedCache["limits"]>} limits */
function ways(limits) {
  const parts = ["at each stop"];
  if (limits.checkpoint || limits.library_bytes !== null) parts.push(`in idle moments, at most ${size(limits.write_budget)} an hour`);
  parts.push(`from ${count(limits.min_tokens)} tokens on`);
  if (limits.max_age_s !== null) parts.push(`for ${seconds(limits.max_age_s)}`);
  return parts.join(", ");
}

/** @param {{cache: SavedCache, path: string, areWordsShown: boolean, setWords: (shown: boolean) => void, again: () => void}} props */
function Actions({ cache, path, areWordsShown, setWords, again }) {
  const [isAsking, setAsking] = useState(false);
  const remove = async () => {
    setAsking(false);
    if (await command("DELETE", `${path}/kv`)) again();
  };
  const hasWords = cache.conversations.some((one) => one.kind === "library");
  return html`
    <p class="buttons kv-actions">
      ${hasWords && html`<button type="button" id="kv-words" aria-pressed=${areWordsShown} onClick=${() => setWords(!areWordsShown)}>First words</button>`}
      ${!isAsking && html`<button type="button" id="kv-purge" onClick=${() => setAsking(true)}>Delete all…</button>`}
      ${isAsking && html`
        <span role="alert">Delete ${count(cache.total)} for good?</span>
        <button type="button" id="kv-purge-now" class="danger" onClick=${remove}>Delete</button>
        <button type="button" onClick=${() => setAsking(false)}>Cancel</button>`}
    </p>`;
}

/** @param {{cache: SavedCache, areWordsShown: boolean}} props */
function Table({ cache, areWordsShown }) {
  useTick(30_000, true);
  return html`
    <div class="scroll tall" tabindex="0" role="region" aria-label="Saved conversations">
      <table id="conversations">
        <thead><tr><th class="number">Tokens</th><th class="number">Size</th><th class="number">Saved</th><th class="number">Last use</th>
          <th class="number">Restored</th><th class="number">Time saved</th>${areWordsShown && html`<th>First words</th>`}</tr></thead>
        <tbody>
          ${cache.conversations.map((one) => html`
            <tr key=${one.id}>
              <td class="number">${count(one.tokens)}</td><td class="number">${size(one.bytes)}</td>
              <td class="number" title=${clockTime(one.saved_at * 1000)}>${age(one.saved_at)}</td>
              <td class="number" title=${one.used_at === null ? "" : clockTime(one.used_at * 1000)}>${one.used_at === null ? "–" : age(one.used_at)}</td>
              <td class="number">${one.restores === null ? "–" : times(one.restores)}</td>
              <td class="number">${one.saved_s === null || one.saved_s <= 0 ? "–" : seconds(one.saved_s)}</td>
              ${areWordsShown && html`<td class="why" dir="auto">${one.words}</td>`}
            </tr>`)}
        </tbody>
      </table>
    </div>`;
}

/** @param {number} number */
const times = (number) => (number === 0 ? "never" : number === 1 ? "once" : `${count(number)} times`);

/** @param {number} at seconds since 1970 */
function age(at) {
  const passed = Date.now() / 1000 - at;
  return passed < 1 ? "now" : `${passed < 100 ? `${Math.round(passed)} s` : seconds(passed)} ago`;
}
