// Memory pools: a bar of each, with the same amounts as a list, and notices.

import { byId, keyed, make, setAttribute, setText } from "./elements.js";

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const COLORS = 8;
/** Parts of a pool that are no model, in the order of the bar. */
const OTHER_PARTS = ["free", "foreign", "reserve", "outside"];

/** Return an amount in words, as the proxy writes it: GiB, or MiB below one. */
export function size(bytes) {
  return Math.abs(bytes) < GIB ? `${(bytes / MIB).toFixed(0)} MiB` : `${(bytes / GIB).toFixed(1)} GiB`;
}

/**
 * Return the parts of a pool from left to right; `share` is 0 to 1 of the bar's width.
 *
 * The bar of a pool with a limit shows what models may hold: of a machine with 256 GiB, a limit of
 * 8 GiB would be too small to see.
 */
function partsOf(pool, models) {
  const parts = models.map((model) => modelPart(pool, model)).filter((part) => part.bytes);
  const shown = parts.reduce((sum, part) => sum + part.bytes, 0);
  if (pool.held > shown) {
    parts.push({ key: "models", kind: "ours", color: 0, name: "other models", bytes: pool.held - shown, taken: 1, note: "" });
  }
  const free = Math.max(pool.free, 0);
  const others = Object.entries(pool.others).map(([name, bytes]) => `${name} ${size(bytes)}`);
  const amounts = {
    free: ["free", free, pool.free < 0 ? `${size(-pool.free)} too much is held` : ""],
    foreign: ["other programs", pool.foreign, others.join(", ")],
    reserve: ["reserve", pool.reserve, "never given to models"],
    outside: ["beyond the limit", 0, `models may hold ${size(pool.limit ?? 0)}`],
  };
  const isLimited = pool.limit !== null && pool.limit < pool.capacity - pool.reserve;
  const known = pool.held + free + pool.foreign + pool.reserve;
  if (isLimited) amounts.outside[1] = Math.max(pool.capacity - known, 0);
  for (const kind of OTHER_PARTS) {
    const [name, bytes, note] = amounts[kind];
    if (bytes || kind === "free") parts.push({ key: `part ${kind}`, kind, name, bytes, note, taken: 1 });
  }
  const drawn = { foreign: isLimited ? Math.max(pool.limit - pool.held - free, 0) : pool.foreign };
  if (isLimited) drawn.reserve = drawn.outside = 0;
  const sizes = parts.map((part) => drawn[part.kind] ?? part.bytes);
  const whole = Math.max(sizes.reduce((sum, bytes) => sum + bytes, 0), isLimited ? 0 : pool.capacity, 1);
  return parts.map((part, index) => ({ ...part, share: sizes[index] / whole }));
}

/** Return the part of one model: what it was granted or what it uses, whichever is more. */
function modelPart(pool, model) {
  const claim = model.claim[pool.name] ?? 0;
  const seen = model.seen[pool.name];
  const bytes = Math.max(claim, seen ?? 0);
  const isTaken = seen === undefined && model.phase !== "starting"; // not measured
  const notes = [model.phase, model.source];
  if (model.pinned) notes.push("pinned");
  if (seen !== undefined) notes.push(`${size(seen)} in use`);
  if (seen !== undefined && seen < claim) notes.push(`${size(claim - seen)} reserved`);
  if (seen === undefined && model.phase === "starting") notes.push("reserved");
  if (seen > claim) notes.push(`${size(seen - claim)} more than it was granted`);
  return {
    key: `model ${model.model}`, kind: "ours", name: model.model, bytes, note: notes.join(", "),
    color: colorOf(model.model), taken: isTaken ? 1 : (seen ?? 0) / Math.max(bytes, 1),
  };
}

const colors = new Map();

/** Return the number of a model's color: each new model gets the next one, and keeps it. */
function colorOf(name) {
  if (!colors.has(name)) colors.set(name, (colors.size % COLORS) + 1);
  return colors.get(name);
}

function createPool(pool) {
  return make(
    "li",
    { class: "pool" },
    make("h3", {}, pool.name),
    make("p", { class: "quiet facts" }),
    // The list below says the same in words.
    make("div", { class: "bar", "aria-hidden": "true" }),
    make("ul", { class: "parts", "aria-label": `Memory of ${pool.name}` }),
  );
}

function updatePool(item, pool, models) {
  const facts = [`${size(pool.capacity)} capacity`];
  if (pool.limit !== null) facts.push(`limit ${size(pool.limit)}`);
  facts.push(`${size(pool.held)} held by models`, `${size(Math.max(pool.free, 0))} free`);
  if (pool.stale) facts.push("not read for a while");
  if (!pool.source) facts.push("declared, not read");
  setText(item.querySelector(".facts"), facts.join(" · "));
  item.classList.toggle("full", pool.free < 0);
  const parts = partsOf(pool, models);
  keyed(item.querySelector(".bar"), parts, (part) => part.key, createPart, updatePart);
  keyed(item.querySelector(".parts"), parts, (part) => part.key, createWords, updateWords);
}

function createPart(part) {
  const inside = part.kind === "ours" ? make("span", { class: "reserved" }) : null;
  return make("span", { class: `part ${part.kind}`, "data-color": part.color ?? null }, inside);
}

function updatePart(item, part) {
  item.style.width = `${100 * part.share}%`;
  setAttribute(item, "title", `${part.name}: ${size(part.bytes)}`);
  const reserved = item.querySelector(".reserved");
  if (reserved) reserved.style.width = `${100 * (1 - part.taken)}%`;
}

function createWords(part) {
  return make(
    "li",
    {},
    make("span", { class: `swatch ${part.kind}`, "data-color": part.color ?? null, "aria-hidden": "true" }),
    make("span", { class: "part-name" }),
    make("span", { class: "amount" }),
    make("small", {}),
  );
}

function updateWords(item, part) {
  setText(item.querySelector(".part-name"), part.name);
  setText(item.querySelector(".amount"), ` ${size(part.bytes)}`);
  setText(item.querySelector("small"), part.note);
}

/** Show `state`, the body of /api/memory; nothing of it where memory is no condition. */
export function drawMemory(state) {
  const section = byId("memory");
  section.hidden = !state || !state.pools.length;
  if (section.hidden) return;
  setText(byId("memory-mode"), state.mode === "observe" ? "Observed only: groups or the matrix decide." : "");
  const notices = state.notices.map((notice) => ({ ...notice, key: `${notice.kind} ${notice.model} ${notice.pool}` }));
  keyed(
    byId("memory-notices"), notices, (notice) => notice.key,
    (notice) => make("li", { class: "notice", "data-kind": notice.kind }),
    (item, notice) => setText(item, notice.text),
  );
  keyed(byId("pools"), state.pools, (pool) => pool.name, createPool, (item, pool) => updatePool(item, pool, state.models));
}
