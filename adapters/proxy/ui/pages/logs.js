// Logs of the proxy and of all models, read only while this page is shown.

import { html, useState } from "../vendor/preact.js";
import { Log } from "../log.js";

export default function Logs() {
  const [filter, setFilter] = useState("");
  const [isFollowing, setFollowing] = useState(true);
  /** @param {any} event */
  const type = (event) => setFilter(event.target.value);
  /** @param {any} event */
  const check = (event) => setFollowing(event.target.checked);
  return html`
    <section id="page-logs" aria-labelledby="logs-title">
      <div class="title">
        <h1 id="logs-title">Logs</h1>
        <label>Only lines with <input id="log-filter" type="search" autocomplete="off" value=${filter} onInput=${type} /></label>
        <label class="check"><input id="log-follow" type="checkbox" checked=${isFollowing} onChange=${check} /> Follow</label>
      </div>
      <div class="logs">
        <section class="card" aria-labelledby="proxy-log-title">
          <h2 id="proxy-log-title">Proxy</h2>
          <${Log} id="proxy-log" label="Log of the proxy" path="/logs/stream/proxy" filter=${filter} isFollowing=${isFollowing} />
        </section>
        <section class="card" aria-labelledby="upstream-log-title">
          <h2 id="upstream-log-title">Models</h2>
          <${Log} id="upstream-log" label="Log of all models" path="/logs/stream/upstream" filter=${filter} isFollowing=${isFollowing} />
        </section>
      </div>
    </section>`;
}
