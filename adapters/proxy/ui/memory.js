// Memory pools: a bar of each, with the same amounts as a list, and notices.

import { html } from "./vendor/preact.js";
import { size } from "./format.js";

const COLORS = 8;
/** Parts of a pool that are no model, in the order of the bar. */
const OTHER_PARTS = ["free", "foreign", "reserve", "outside"];

/** @typedef {{key: string, kind: string, name: string, bytes: number, note: string, taken: number, color?: number, share?: number}} Part */

/**
 * Return the parts of a pool from left to right; `share` is 0 to 1 of the bar's width.
 *
 * The bar of a pool with a limit shows only the memory that models may hold: of a machine with
 * 256 GiB, a limit of 8 GiB would be too small to see.
 *
 * @param {any} pool
 * @param {any[]} models
 * @returns {(Part & {share: number})[]}
 */
function partsOf(pool, models) {
  /** @type {Part[]} */
  const parts = models.map((model) => modelPart(pool, model)).filter((part) => part.bytes);
  const shown = parts.reduce((sum, part) => sum + part.bytes, 0);
  if (pool.held > shown) {
    parts.push({ key: "models", kind: "ours", color: 0, name: "other models", bytes: pool.held - shown, taken: 1, note: "" });
  }
  const free = Math.max(pool.free, 0);
  const others = Object.entries(pool.others).map(([name, bytes]) => `${name} ${size(/** @type {number} */ (bytes))}`);
  /** @type {Record<string, [string, number, string]>} */
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
  /** @type {Record<string, number>} */
  const drawn = { foreign: isLimited ? Math.max(pool.limit - pool.held - free, 0) : pool.foreign };
  if (isLimited) drawn.reserve = drawn.outside = 0;
  const sizes = parts.map((part) => drawn[part.kind] ?? part.bytes);
  const whole = Math.max(sizes.reduce((sum, bytes) => sum + bytes, 0), isLimited ? 0 : pool.capacity, 1);
  return parts.map((part, index) => ({ ...part, share: sizes[index] / whole }));
}

/** Return the part of one model: its grant or its use, whichever is more. @param {any} pool @param {any} model @returns {Part} */
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

/** @type {Map<string, number>} */
const colors = new Map();

/** Return the number of a model's color: each new model gets the next one, and keeps it. @param {string} name */
export function colorOf(name) {
  const known = colors.get(name) ?? (colors.size % COLORS) + 1;
  colors.set(name, known);
  return known;
}

/** @param {{pool: any, models: any[]}} props */
function Pool({ pool, models }) {
  const facts = [`${size(pool.capacity)} capacity`];
  if (pool.limit !== null) facts.push(`limit ${size(pool.limit)}`);
  facts.push(`${size(pool.held)} held by models`, `${size(Math.max(pool.free, 0))} free`);
  if (pool.stale) facts.push("not read for a while");
  if (!pool.source) facts.push("declared, not read");
  const parts = partsOf(pool, models);
  return html`
    <li class=${`pool ${pool.free < 0 ? "full" : ""}`} data-key=${pool.name}>
      <h3>${pool.name}</h3>
      <p class="quiet facts">${facts.join(" · ")}</p>
      <div class="bar" aria-hidden="true">
        ${parts.map(
          (part) => html`
            <span key=${part.key} class=${`part ${part.kind}`} data-key=${part.key} data-color=${part.color ?? null}
              title=${`${part.name}: ${size(part.bytes)}`} style=${{ width: `${100 * part.share}%` }}>
              ${part.kind === "ours" && html`<span class="reserved" style=${{ width: `${100 * (1 - part.taken)}%` }}></span>`}
            </span>`,
        )}
      </div>
      <ul class="parts" aria-label=${`Memory of ${pool.name}`}>
        ${parts.map(
          (part) => html`
            <li key=${part.key} data-key=${part.key}>
              <span class=${`swatch ${part.kind}`} data-color=${part.color ?? null} aria-hidden="true"></span>
              <span class="part-name">${part.name}</span><span class="amount"> ${size(part.bytes)}</span>
              <small>${part.note}</small>
            </li>`,
        )}
      </ul>
    </li>`;
}

/** Show `state`, the body of /api/memory; nothing of it where memory is no condition. @param {{state: any}} props */
export function Memory({ state }) {
  if (!state?.pools.length) return null;
  return html`
    <section id="memory" class="card" aria-labelledby="memory-title">
      <div class="title">
        <h2 id="memory-title">Memory</h2>
        <p id="memory-mode" class="quiet">${state.mode === "observe" ? "Observed only: groups or the matrix decide." : ""}</p>
      </div>
      <ul id="memory-notices" class="notices" role="status" aria-label="Notices of memory">
        ${state.notices.map(
          (/** @type {any} */ notice) => html`
            <li key=${`${notice.kind} ${notice.model} ${notice.pool}`} class="notice" data-kind=${notice.kind}>${notice.text}</li>`,
        )}
      </ul>
      <ul id="pools" class="pools">
        ${state.pools.map((/** @type {any} */ pool) => html`<${Pool} key=${pool.name} pool=${pool} models=${state.models} />`)}
      </ul>
    </section>`;
}
