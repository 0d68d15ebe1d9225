// The web UI of swapchart: models, requests and logs, as they change.
//
// Names, descriptions, errors and logs come from models and their clients, so nothing here is ever
// read as HTML: text goes into the page by textContent alone.

import { byId, keyed, make, setText } from "./elements.js";
import { drawMemory } from "./memory.js";

const LOG_LINES = 2000;
const PAGE_ROWS = 25;
const HISTORY_ROWS = 50;
const RETRY_MS = [1000, 2000, 5000];
const ANSI = /\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))/g;
const SVG = "http://www.w3.org/2000/svg";
const KEY = "swapchart.key";
/** Prefix of the proxy's paths: a reverse proxy may serve it below a path of its own. */
const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");

/** What the proxy told last; no models before it did. Models and requests by id, in the order in which they are shown. */
const told = {
  models: null,
  flights: new Map(),
  queue: { queue: [], swaps: [] },
  memory: null, // as /api/memory tells
  clock: null, // seconds: the browser's clock minus the scheduler's
};

/** What this page shows. */
const view = { page: "models", model: null, donePage: 1, donePages: 1 };

// ---- the page's elements --------------------------------------------------------------
/** Fill a table's body with rows of texts, elements, or [text, class]. */
function fillTable(table, rows) {
  table.tBodies[0].replaceChildren(...rows.map((cells) => make("tr", {}, ...cells.map(cell))));
}

function cell(value) {
  const [text, kind] = Array.isArray(value) ? value : [value, null];
  return make("td", { class: kind }, text instanceof Node ? text : String(text ?? ""));
}

/** Call `work` once, soon, however often it is asked for. */
function soon(work, ms = 0) {
  let timer = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      work();
    }, ms);
  };
}

let saying = null;
function say(text) {
  clearTimeout(saying);
  setText(byId("said"), text);
  saying = setTimeout(() => setText(byId("said"), ""), 8000);
}

/** Say what went wrong, unless the page asks for a key because of it. */
function complain(error) {
  if (!byId("key-dialog").open) say(error.message);
}

// ---- numbers and times ----------------------------------------------------------------
function seconds(value) {
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 100) return `${value.toFixed(1)} s`;
  if (value < 6000) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} days`;
}

function clockTime(ms) {
  const at = new Date(ms);
  const isToday = at.toDateString() === new Date().toDateString();
  return isToday ? at.toLocaleTimeString() : at.toLocaleString();
}

const known = (value) => typeof value === "number" && value >= 0;
const count = (value) => (known(value) ? value.toLocaleString() : "–");
const speed = (value) => (known(value) && value > 0 ? value.toFixed(1) : "–");
const words = (name) => name.replaceAll("_", " ");

// ---- asking the proxy -----------------------------------------------------------------
/** A refusal or a failure, with the proxy's own words. */
class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Codes of refusals that no API key changes: their messages name the key of the configuration. */
const NOT_FOR_A_KEY = new Set(["origin_not_allowed", "host_not_allowed"]);

/** Ask for `path`. A key that was typed goes along; else the browser's own, if it has one. */
async function fetchFrom(path, given = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { accept: "application/json", ...given.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  const credentials = key ? "omit" : "same-origin";
  const answer = await fetch(ROOT + path, { ...given, headers, credentials, cache: "no-store" });
  if (answer.ok) return answer;
  let message = `${answer.status} ${answer.statusText}`;
  let code = null;
  try {
    ({ message, code } = (await answer.json()).error);
  } catch {
    // not ours: its status must do
  }
  if (NOT_FOR_A_KEY.has(code)) setText(byId("refused"), message);
  else if (answer.status === 401 || answer.status === 403) askForKey(message);
  throw new Failure(answer.status, message);
}

async function getJson(path) {
  return (await fetchFrom(path)).json();
}

/** Have something done because somebody clicked; says why it was not. */
async function order(method, path, body) {
  const given = { method };
  if (body !== undefined) {
    given.body = JSON.stringify(body);
    given.headers = { "content-type": "application/json" };
  }
  try {
    await fetchFrom(path, given);
  } catch (error) {
    complain(error);
  }
}

/** Pass on the text of an answer that has no end; returns when it ended after all. */
async function follow(path, signal, take) {
  const answer = await fetchFrom(path, { signal, headers: { accept: "*/*" } });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    take(value);
  }
}

/** Follow `path` until the signal, and again when it breaks off; `begin` comes before each try. */
async function followAgain(path, signal, begin, take, lost = () => {}) {
  for (let tries = 0; !signal.aborted; tries += 1) {
    try {
      begin();
      await follow(path, signal, (text) => {
        tries = 0;
        take(text);
      });
      lost(new Error("the proxy has ended the stream"));
    } catch (error) {
      if (signal.aborted) return;
      lost(error);
      if (error instanceof Failure && error.status < 500) return;
    }
    await pause(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)], signal);
  }
}

function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    });
  });
}

function askForKey(why) {
  const dialog = byId("key-dialog");
  setText(byId("key-why"), why);
  if (dialog.open) return;
  byId("key").value = "";
  dialog.showModal();
}

byId("key-form").addEventListener("submit", () => {
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  begin();
});

// ---- what the proxy tells as it happens ---------------------------------------------------
let listening = null;

/** Listen from now on, from the beginning. */
function begin() {
  end();
  listening = new AbortController();
  const { signal } = listening;
  let rest = "";
  followAgain(
    "/api/events",
    signal,
    () => {
      rest = "";
      setConnection("connecting");
      logs.proxy.clear();
      logs.upstream.clear();
    },
    (text) => {
      setConnection("live");
      const frames = (rest + text).split("\n\n");
      rest = frames.pop();
      frames.forEach(takeFrame);
    },
    (error) => setConnection("lost", error.message),
  );
  readQueue();
  readDone();
  openModel();
}

function end() {
  listening?.abort();
  reading?.abort();
  listening = reading = null;
}

function setConnection(state, why = "") {
  const badge = byId("connection");
  badge.dataset.state = state;
  badge.title = why;
  setText(badge, state);
}

function takeFrame(frame) {
  const line = frame.split("\n").find((each) => each.startsWith("data:"));
  if (!line) return;
  const { type, data } = JSON.parse(line.slice(5));
  const value = JSON.parse(data);
  const take = TAKE[type];
  if (take) take(value);
}

const TAKE = {
  modelStatus(rows) {
    told.models = new Map(rows.map((row) => [row.id, row]));
    drawModels();
  },
  transition(value) {
    if (value.model !== view.model) return;
    chart.move(value);
    readHistory();
  },
  inflight(value) {
    const note = (row) =>
      told.flights.set(row.id, { ...row, began: performance.now() - row.elapsed_ms });
    if (value.operation === "remove") told.flights.delete(value.id);
    else if (value.operation === "upsert") note(value.request);
    else {
      told.flights.clear();
      value.requests.forEach(note);
    }
    drawFlights();
    drawModels();
  },
  queue(value) {
    told.queue = value;
    drawQueue();
  },
  memory(value) {
    told.memory = value;
    drawMemory(value);
    readModelMemory();
  },
  activity: () => view.donePage === 1 && readDone(),
  logData: (value) => logs[value.source]?.append(value.data),
  profileChanged: () => readProfiles(),
  config({ held_back }) {
    byId("held-back").hidden = !held_back;
    byId("held-back-message").textContent = held_back?.message ?? "";
    byId("held-back-command").textContent = `swapchart config reload --url ${location.origin}${ROOT}`;
  },
};

// ---- models ---------------------------------------------------------------------------
/** What a state means at a glance: the colour of its badge. */
function moodOf(row) {
  const active = row.configuration ?? [];
  if (active.includes("failed") || active.includes("backoff")) return "failed";
  return row.state || "peer";
}

function stateText(row) {
  const inner = (row.configuration ?? []).slice(-1)[0] ?? "";
  const outer = row.configuration?.at(-2) ?? "";
  const isInside = outer && outer !== "alive" && outer !== row.configuration[0];
  return isInside ? `${words(outer)} · ${words(inner)}` : words(inner);
}

/** Why a model is not well; empty when nothing is known against it. */
function trouble(row) {
  if (moodOf(row) !== "failed" && !row.failures) return "";
  const times = row.failures > 1 ? `${row.failures} times in a row` : "";
  return ["Failed", times && ` ${times}`, row.cause && `: ${row.cause}`].join("");
}

function createModel(row) {
  const address = `${ROOT}/ui/models?model=${encodeURIComponent(row.id)}`;
  return make(
    "li",
    { class: "model" },
    make("span", { class: "badge" }),
    make(
      "div",
      { class: "about" },
      make("a", { class: "name", href: address, "data-model": row.id }),
      make("span", { class: "quiet aliases" }),
      make("p", { class: "description" }),
      make("p", { class: "trouble" }),
    ),
    make("span", { class: "quiet load" }),
    make(
      "div",
      { class: "buttons" },
      make(
        "button",
        {
          type: "button",
          class: "start",
          "aria-label": `Load ${row.id}`,
          onclick: () => order("POST", "/models/load", { model: row.id }),
        },
        "Load",
      ),
      make(
        "button",
        {
          type: "button",
          class: "stop",
          "aria-label": `Unload ${row.id}`,
          onclick: () => order("POST", `/api/models/unload/${encodeURIComponent(row.id)}`),
        },
        "Unload",
      ),
    ),
  );
}

function updateModel(item, row) {
  const part = (name) => item.querySelector(`.${name}`);
  item.dataset.mood = moodOf(row);
  item.classList.toggle("chosen", row.id === view.model);
  setText(part("badge"), stateText(row));
  setText(part("name"), row.name || row.id);
  part("name").toggleAttribute("aria-current", row.id === view.model);
  const others = [row.name ? row.id : "", ...(row.aliases ?? [])].filter(Boolean);
  setText(part("aliases"), others.join(", ") + (row.unlisted ? " (unlisted)" : ""));
  setText(part("description"), row.description);
  setText(part("trouble"), trouble(row));
  setText(part("load"), loadOf(row));
  const isDown = row.state === "stopped" || row.state === "shutdown";
  part("start").disabled = !isDown || row.state === "shutdown";
  part("stop").disabled = isDown && !(row.configuration ?? []).includes("backoff");
}

function loadOf(row) {
  // Not the figures of `row`: these are told when a model changes its state, and not else.
  const flights = [...told.flights.values()].filter((flight) => flight.model === row.id);
  const waiting = flights.filter((flight) => flight.is_waiting).length;
  const parts = [];
  if (flights.length > waiting) parts.push(`${flights.length - waiting} running`);
  if (waiting) parts.push(`${waiting} waiting`);
  return parts.join(", ");
}

function drawModels() {
  if (!told.models) return;
  const rows = [...told.models.values()];
  const ours = rows.filter((row) => !row.peerID);
  const peers = rows.filter((row) => row.peerID);
  keyed(byId("models"), ours, (row) => row.id, createModel, updateModel);
  const ready = ours.filter((row) => row.state === "ready").length;
  setText(byId("summary"), `${ready} of ${ours.length} ready`);
  byId("no-models").hidden = ours.length > 0;
  byId("peers").hidden = !peers.length;
  byId("peer-list").replaceChildren(...peers.map((row) => make("li", {}, row.name)));
  const choice = byId("done-model");
  if (choice.options.length !== ours.length + 1) {
    const chosen = choice.value;
    choice.replaceChildren(new Option("all", ""), ...ours.map(({ id }) => new Option(id, id)));
    choice.value = chosen;
  }
  drawModel();
}

byId("unload-all").addEventListener("click", () => order("POST", "/api/models/unload"));

// ---- one model --------------------------------------------------------------------------
let reading = null;

function drawModel() {
  const row = told.models?.get(view.model);
  byId("model").hidden = !row || Boolean(row.peerID);
  if (!row) return;
  setText(byId("model-title"), row.name || row.id);
  const facts = [
    row.id, row.pid && `process ${row.pid}`, row.node && `on ${row.node}`, row.incarnation && `start ${row.incarnation}`,
  ];
  setText(byId("model-facts"), facts.filter(Boolean).join(" · "));
  const open = byId("model-open");
  open.hidden = row.state !== "ready";
  open.href = `${ROOT}/upstream/${encodeURIComponent(row.id)}/`;
  chart.show(row);
}

/** Read all that is shown of the chosen model, and follow its log. */
function openModel() {
  reading?.abort();
  reading = null;
  if (!view.model || document.hidden) return;
  const id = encodeURIComponent(view.model);
  const model = view.model;
  reading = new AbortController();
  logs.model.clear();
  followAgain(
    `/logs/stream/${id}`,
    reading.signal,
    () => logs.model.clear(),
    (text) => logs.model.append(text),
  );
  readHistory();
  readModelMemory();
  getJson(`/api/models/${id}/chart`).then(
    (value) => {
      if (view.model === model) chart.build(value);
    },
    (error) => setText(byId("chart-now"), `The chart is not told: ${error.message}`),
  );
}

const readHistory = soon(async () => {
  const model = view.model;
  if (!model) return;
  try {
    const path = `/api/models/${encodeURIComponent(model)}/history?limit=${HISTORY_ROWS}`;
    const { data } = await getJson(path);
    if (model !== view.model) return;
    fillTable(byId("history"), data.map(historyRow));
    chart.came(data[0]);
    setText(byId("history-note"), data.length ? "" : "Nothing has happened to it yet.");
  } catch (error) {
    setText(byId("history-note"), error.message);
  }
}, 150);

/** What a request would cause, in words; the sum follows line by line. */
const OUTCOMES = {
  serve: "A request is served at once.",
  start: "A request starts it: there is room.",
  swap: "A request starts it, and evicts",
  wait: "A request would wait:",
  reject: "A request is rejected:",
};

const readModelMemory = soon(async () => {
  const model = view.model;
  const isOn = Boolean(told.memory?.pools.length);
  if (!model || !isOn) {
    byId("model-memory").hidden = true;
    return;
  }
  try {
    const found = await getJson(`/api/models/${encodeURIComponent(model)}/explain`);
    if (model !== view.model) return;
    byId("model-memory").hidden = false;
    const more = found.outcome === "swap" ? `${found.evict.join(", ")}.` : found.why;
    setText(byId("model-memory-outcome"), `${OUTCOMES[found.outcome]} ${more}`.trim());
    const lines = found.memory ?? ["Memory is no condition for it."];
    byId("model-memory-sum").replaceChildren(...lines.map((line) => make("li", {}, line)));
  } catch {
    byId("model-memory").hidden = true; // a model of a peer, or one that is gone
  }
}, 200);

function historyRow(row) {
  const hooks = row.hooks.map(
    (hook) => `${words(hook.point)}: ${hook.outcome} after ${seconds(hook.seconds)}, ${hook.action}`,
  );
  const why = make("div", {}, make("span", {}, row.cause), ...hooks.map((text) => make("small", {}, text)));
  return [
    [clockTime(row.at * 1000), "time"], row.source, row.target, row.event, [why, "why"],
    [seconds(row.seconds), "number"],
  ];
}

// ---- the chart of a model -----------------------------------------------------------------
/** Draws states as boxes, and the transitions out of the state that is active or pointed at. */
const chart = {
  value: null,
  boxes: new Map(),
  active: [],
  last: null,
  pointed: null,

  /** Make the boxes; `value` is what /api/models/<id>/chart tells. */
  build(value) {
    this.value = value;
    this.boxes.clear();
    this.last = this.pointed = null;
    const holders = new Map([["", byId("chart")]]);
    byId("chart").replaceChildren(document.createElementNS(SVG, "svg"));
    for (const state of value.states) {
      const box = this.box(state);
      holders.get(state.above.at(-1) ?? "").append(box);
      holders.set(state.id, box.querySelector(".inside") ?? box);
    }
    this.active = value.configuration;
    this.draw();
  },

  box(state) {
    const isGroup = this.value.states.some((other) => other.above.at(-1) === state.id);
    const name = make("button", { type: "button", class: "state-name" }, state.id);
    const role = state.is_serving ? "serving" : state.is_quiet ? "quiet" : "";
    const box = make(
      "div",
      { class: "state", "data-kind": state.kind, "data-role": role, "data-state": state.id },
      name,
      isGroup ? make("div", { class: "inside" }) : null,
    );
    const point = (id) => () => {
      this.pointed = id;
      this.draw();
    };
    name.addEventListener("focus", point(state.id));
    name.addEventListener("blur", point(null));
    name.addEventListener("pointerenter", point(state.id));
    name.addEventListener("pointerleave", point(null));
    this.boxes.set(state.id, box);
    return box;
  },

  /** A transition was taken. */
  move(value) {
    this.last = value;
    this.active = value.configuration;
    this.draw();
  },

  /** The last transition before anybody looked; a newer one that was seen stays. */
  came(row) {
    this.last ??= row ?? null;
    this.draw();
  },

  /** The whole state was told. */
  show(row) {
    if (this.value?.model !== row.id) return;
    const cause = row.cause ? `: ${row.cause}` : "";
    setText(byId("chart-now"), `${stateText(row)}${cause}`);
    if (String(this.active) === String(row.configuration)) return;
    this.active = row.configuration;
    this.draw();
  },

  draw() {
    if (!this.value || byId("model").hidden) return;
    const chosen = this.pointed ?? this.active.at(-1);
    for (const [id, box] of this.boxes) {
      box.classList.toggle("active", this.active.includes(id));
      box.classList.toggle("pointed", id === this.pointed);
      box.classList.toggle("left", id === this.last?.source && !this.active.includes(id));
    }
    const above = this.value.states.find((state) => state.id === chosen)?.above ?? [];
    const from = [chosen, ...above.toReversed()];
    const ways = this.value.transitions.filter((way) => from.includes(way.source));
    this.drawArrows(ways);
    this.drawWays(from, ways);
  },

  drawArrows(ways) {
    const area = byId("chart").getBoundingClientRect();
    const place = (id) => {
      const at = this.boxes.get(id).getBoundingClientRect();
      return { x: at.x - area.x, y: at.y - area.y, width: at.width, height: at.height };
    };
    const drawn = ways.map((way) => {
      const origins = new Set(way.labels.map((label) => label.origin));
      const origin = origins.size === 1 ? [...origins][0] : "";
      return arrow(place(way.source), place(way.target), `way ${origin}`);
    });
    const { source, target } = this.last ?? {};
    if (!this.pointed && source !== target && this.boxes.has(source) && this.boxes.has(target)) {
      drawn.push(arrow(place(source), place(target), "taken"));
    }
    const canvas = byId("chart").querySelector("svg");
    canvas.setAttribute("width", area.width);
    canvas.setAttribute("height", area.height);
    canvas.setAttribute("aria-hidden", "true");
    canvas.replaceChildren(...drawn.filter(Boolean));
  },

  drawWays(from, ways) {
    setText(byId("ways-title"), `Transitions from ${from[0]}`);
    const staying = this.value.states
      .filter((state) => from.includes(state.id))
      .flatMap((state) => state.inside.map((label) => ["stays", label]));
    const leading = ways.flatMap((way) => way.labels.map((label) => [way.target, label]));
    const rows = [...leading, ...staying].map(([target, label]) => [
      [label.events.join(", ") || "at once", `event ${label.origin}`],
      label.guard, target, [label.actions.join(", "), "quiet"],
    ]);
    fillTable(byId("ways"), rows);
  },
};

/** Draw an arrow from one rectangle to another, bent a little so that its way back is seen too. */
function arrow(from, to, kind) {
  const [start, finish] = [middle(from), middle(to)];
  const [dx, dy] = [finish.x - start.x, finish.y - start.y];
  const length = Math.hypot(dx, dy);
  if (!length) return null;
  const bend = Math.min(0.16 * length, 46);
  const control = {
    x: (start.x + finish.x) / 2 - (dy / length) * bend,
    y: (start.y + finish.y) / 2 + (dx / length) * bend,
  };
  const tail = edgeOf(from, control);
  const head = edgeOf(to, control);
  const angle = Math.atan2(head.y - control.y, head.x - control.x);
  const wing = (turn) =>
    `${head.x - 9 * Math.cos(angle + turn)},${head.y - 9 * Math.sin(angle + turn)}`;
  const group = document.createElementNS(SVG, "g");
  group.setAttribute("class", kind);
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", `M${tail.x},${tail.y}Q${control.x},${control.y} ${head.x},${head.y}`);
  const tip = document.createElementNS(SVG, "polygon");
  tip.setAttribute("points", `${head.x},${head.y} ${wing(0.4)} ${wing(-0.4)}`);
  group.append(line, tip);
  return group;
}

const middle = (box) => ({ x: box.x + box.width / 2, y: box.y + box.height / 2 });

/** Return where the line from the middle of `box` towards `point` leaves the box. */
function edgeOf(box, point) {
  const { x, y } = middle(box);
  const [dx, dy] = [point.x - x, point.y - y];
  const share = Math.min(
    dx ? box.width / 2 / Math.abs(dx) : Infinity,
    dy ? box.height / 2 / Math.abs(dy) : Infinity,
  );
  return { x: x + dx * share, y: y + dy * share };
}

new ResizeObserver(soon(() => chart.draw())).observe(byId("chart"));

// ---- requests -----------------------------------------------------------------------------
function createFlight(row) {
  const cancel = make(
    "button",
    {
      type: "button",
      "aria-label": `Cancel request ${row.id}`,
      onclick: () => order("POST", `/api/inflight/${encodeURIComponent(row.id)}/cancel`),
    },
    "Cancel",
  );
  const cells = [row.model, `${row.method} ${row.req_path}`, row.remote_ip, "", ["", "number"], ["", "number"], cancel];
  return make("tr", {}, ...cells.map(cell));
}

function updateFlight(item, row) {
  const status = row.resp_status ? `answering ${row.resp_status}` : "running";
  setText(item.cells[3], row.is_waiting ? "waiting" : status);
  setText(item.cells[4], seconds((performance.now() - row.began) / 1000));
  setText(item.cells[5], count(row.resp_bytes));
}

function drawFlights() {
  const rows = [...told.flights.values()];
  byId("busy").hidden = !rows.length;
  setText(byId("busy"), String(rows.length));
  byId("no-flights").hidden = rows.length > 0;
  byId("flights").hidden = !rows.length;
  keyed(byId("flights").tBodies[0], rows, (row) => row.id, createFlight, updateFlight);
}

function drawQueue() {
  const { queue, swaps } = told.queue;
  byId("no-queue").hidden = queue.length > 0;
  byId("queue").hidden = !queue.length;
  const waited = (row) =>
    told.clock === null ? "" : seconds(Math.max(0, Date.now() / 1000 - told.clock - row.since));
  const rows = queue.map((row) => [
    [row.position, "number"], row.model, [row.priority, "number"], [waited(row), "number"], row.why,
  ]);
  fillTable(byId("queue"), rows);
  const lines = swaps.map(({ target, evicting }) =>
    evicting.length ? `${target} is being loaded; ${evicting.join(", ")} must go` : `${target} is being loaded`,
  );
  byId("swaps").replaceChildren(...lines.map((line) => make("li", {}, line)));
}

async function readQueue() {
  try {
    const value = await getJson("/api/queue");
    told.clock = Date.now() / 1000 - value.now;
    told.queue = value;
    drawQueue();
  } catch (error) {
    complain(error);
  }
}

// ---- finished requests ----------------------------------------------------------------
const readDone = soon(async () => {
  if (view.page !== "activity") return;
  const model = byId("done-model").value;
  const query = new URLSearchParams({ limit: PAGE_ROWS, page: view.donePage });
  if (model) query.set("model", model);
  const only = model ? `?${new URLSearchParams({ model })}` : "";
  try {
    const [page, stats] = await Promise.all([
      getJson(`/api/metrics/activity?${query}`), getJson(`/api/metrics/stats${only}`),
    ]);
    fillTable(byId("done"), page.data.map(doneRow));
    view.donePages = Math.max(1, page.total_pages);
    setText(byId("done-note"), page.problem ?? (page.total ? "" : "None yet."));
    setText(byId("page-number"), `page ${view.donePage} of ${view.donePages}`);
    byId("newer").disabled = view.donePage <= 1;
    byId("older").disabled = view.donePage >= view.donePages;
    setText(byId("totals"), totals(stats));
  } catch (error) {
    setText(byId("done-note"), error.message);
  }
}, 200);

function totals(stats) {
  return [
    `${count(stats.total_requests)} requests`, `${count(stats.total_input_tokens)} prompt`,
    `${count(stats.total_cache_tokens)} cached`, `${count(stats.total_output_tokens)} generated tokens`,
  ].join(" · ");
}

function doneRow(row) {
  const { tokens } = row;
  const isBad = row.resp_status_code >= 400 || row.error_msg;
  const status = make("div", {}, make("span", { class: isBad ? "bad" : "good" }, String(row.resp_status_code)));
  if (row.error_msg) status.append(make("small", {}, row.error_msg));
  const show = row.has_capture
    ? make("button", { type: "button", "aria-label": `Show request ${row.id}`, onclick: () => showCapture(row.id) }, "Show")
    : "";
  return [
    [clockTime(Date.parse(row.timestamp)), "time"], row.model, row.req_path, [status, "why"],
    [count(tokens.input_tokens), "number"], [count(tokens.cache_tokens), "number"],
    [count(tokens.output_tokens), "number"], [speed(tokens.prompt_per_second), "number"],
    [speed(tokens.tokens_per_second), "number"], [seconds((row.wait_ms ?? 0) / 1000), "number"],
    [seconds(row.duration_ms / 1000), "number"], show,
  ];
}

async function showCapture(id) {
  try {
    const found = await getJson(`/api/captures/${id}`);
    const parts = [
      `${found.req_path}`, fields(found.req_headers), bodyText(found.req_body), "────",
      fields(found.resp_headers), bodyText(found.resp_body),
    ];
    setText(byId("capture-title"), `Request ${id}`);
    setText(byId("capture"), parts.filter(Boolean).join("\n\n"));
    byId("capture-dialog").showModal();
  } catch (error) {
    complain(error);
  }
}

const fields = (headers) =>
  Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`).join("\n");

/** Return a captured body as text: JSON on many lines, everything else as it is. */
function bodyText(packed) {
  if (!packed) return "";
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const text = new TextDecoder().decode(bytes);
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

function turn(pages) {
  view.donePage = Math.min(Math.max(1, view.donePage + pages), view.donePages);
  readDone();
}

byId("newer").addEventListener("click", () => turn(-1));
byId("older").addEventListener("click", () => turn(1));
byId("done-model").addEventListener("change", () => {
  view.donePage = 1;
  readDone();
});

// ---- logs ---------------------------------------------------------------------------------
/** The last lines of a log in an element; scrolls along while its end is in sight. */
class Log {
  constructor(element) {
    this.element = element;
    this.draw = soon(() => this.drawNow(), 100);
    this.isAtEnd = true;
    element.addEventListener("scroll", () => {
      this.isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
    });
    this.clear();
  }

  clear() {
    this.lines = [""];
    this.draw();
  }

  append(text) {
    const [first, ...more] = text.replaceAll("\r\n", "\n").split("\n");
    this.lines[this.lines.length - 1] += first;
    this.lines.push(...more);
    if (this.lines.length > LOG_LINES) this.lines.splice(0, this.lines.length - LOG_LINES);
    this.draw();
  }

  drawNow() {
    const wanted = this.element.id === "model-log" ? "" : byId("log-filter").value.toLowerCase();
    const lines = this.lines.map((line) => line.replace(ANSI, ""));
    const shown = wanted ? lines.filter((line) => line.toLowerCase().includes(wanted)) : lines;
    const { element, isAtEnd } = this;
    setText(element, shown.join("\n"));
    if (isAtEnd && byId("log-follow").checked) element.scrollTop = element.scrollHeight;
  }
}

const logs = {
  proxy: new Log(byId("proxy-log")),
  upstream: new Log(byId("upstream-log")),
  model: new Log(byId("model-log")),
};

byId("log-filter").addEventListener("input", () => {
  logs.proxy.draw();
  logs.upstream.draw();
});
byId("log-follow").addEventListener("change", () => {
  for (const log of Object.values(logs)) {
    log.isAtEnd = true;
    log.draw();
  }
});

// ---- profiles -------------------------------------------------------------------------
async function readProfiles() {
  try {
    const { active, profiles } = await getJson("/api/profiles");
    byId("profile-field").hidden = !profiles.length;
    const options = profiles.map(({ id }) => new Option(id, id));
    byId("profile").replaceChildren(new Option("none", ""), ...options);
    byId("profile").value = active ?? "";
  } catch (error) {
    complain(error);
  }
}

byId("profile").addEventListener("change", (event) =>
  order("PUT", "/api/profiles/active", { name: event.target.value || null }),
);

// ---- pages ----------------------------------------------------------------------------
const PAGES = ["models", "activity", "logs"];

/** Show the page that the address names; llama-swap's addresses (#/models) are understood too. */
function route() {
  const named = (location.hash.match(/^#\/(\w+)/) ?? location.pathname.slice(ROOT.length).match(/^\/ui\/(\w+)/) ?? [])[1];
  view.page = PAGES.includes(named) ? named : "models";
  const model = view.page === "models" ? new URLSearchParams(location.search).get("model") : null;
  const isOther = model !== view.model;
  view.model = model;
  for (const page of PAGES) byId(`page-${page}`).hidden = page !== view.page;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === view.page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${model ?? { models: "Models", activity: "Requests", logs: "Logs" }[view.page]} · swapchart`;
  if (isOther && listening) openModel();
  drawModels();
  if (listening) readDone();
  Object.values(logs).forEach((log) => log.draw());
}

function go(address) {
  history.pushState(null, "", address);
  route();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-page], a[data-model]");
  if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(link.getAttribute("href"));
  if (link.dataset.model) byId("model").scrollIntoView({ block: "nearest" });
});
byId("model-close").addEventListener("click", () => go(`${ROOT}/ui/models`));
window.addEventListener("popstate", route);
window.addEventListener("hashchange", route);

// A browser allows few connections to one server: a tab that nobody sees holds none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    end();
    setConnection("paused");
  } else if (!listening) {
    begin();
  }
});

setInterval(() => {
  if (view.page !== "activity") return;
  if (told.flights.size) drawFlights();
  if (told.queue.queue.length) drawQueue();
}, 1000);

route();
if (!document.hidden) begin();
