// A log: the last lines of an endless text, in chunks that the browser lays out only when seen.

import { html, useEffect, useRef } from "./vendor/preact.js";
import { Failure, followAgain, readText, send } from "./api.js";
import { messageOf } from "./format.js";
import { isVisible } from "./store.js";

const ANSI = /\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))/g;
const CHUNK_LINES = 200;
const MAX_LINES = 20_000;
const LONGEST_LINE = 10_000;

/** The lines of one log in one element; it scrolls along while the end is in sight. */
class LogLines {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    this.filter = "";
    this.isFollowing = true;
    this.isAtEnd = true;
    this.timer = 0;
    /** @type {string[]} */
    this.lines = [""];
    /** Number of lines that are drawn. */
    this.drawn = 0;
    this.isStale = false;
    /** @type {HTMLElement | undefined} The last line, which may go on. */
    this.tail = undefined;
    element.addEventListener("scroll", () => {
      this.isAtEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 40;
    });
  }

  clear() {
    this.lines = [""];
    this.drawn = 0;
    this.isStale = true;
    this.drawSoon();
  }

  /** @param {string} text */
  append(text) {
    const [first, ...more] = text.replaceAll("\r\n", "\n").split("\n");
    const last = this.lines.length - 1;
    if (this.lines[last].length < LONGEST_LINE) this.lines[last] += first;
    for (const line of more) this.lines.push(line);
    if (this.lines.length > MAX_LINES + CHUNK_LINES) {
      this.lines.splice(0, this.lines.length - MAX_LINES);
      this.isStale = true;
    }
    this.drawSoon();
  }

  /** @param {string} filter @param {boolean} isFollowing */
  configure(filter, isFollowing) {
    if (filter === this.filter && isFollowing === this.isFollowing) return;
    this.isStale ||= filter !== this.filter;
    this.filter = filter;
    this.isFollowing = isFollowing;
    this.isAtEnd = true;
    this.drawSoon();
  }

  drawSoon() {
    this.timer ||= window.setTimeout(() => {
      this.timer = 0;
      this.draw();
    }, 100);
  }

  draw() {
    const { element } = this;
    if (this.isStale) {
      element.replaceChildren();
      this.drawn = 0;
      this.isStale = false;
    }
    // The last line is drawn when it is complete, or when nothing follows it for now.
    const wanted = this.filter.toLowerCase();
    this.tail?.remove();
    const end = this.lines.length - 1;
    for (let at = this.drawn; at < end; at += CHUNK_LINES) {
      this.addLines(this.lines.slice(at, Math.min(at + CHUNK_LINES, end)), wanted);
    }
    this.drawn = Math.max(end, 0);
    const rest = this.lines[end].replace(ANSI, "");
    this.tail = document.createElement("div");
    if (rest && (!wanted || rest.toLowerCase().includes(wanted))) this.tail.textContent = rest;
    element.append(this.tail);
    if (this.isAtEnd && this.isFollowing) element.scrollTop = element.scrollHeight;
  }

  /** @param {string[]} lines @param {string} wanted */
  addLines(lines, wanted) {
    const clean = lines.map((line) => line.replace(ANSI, ""));
    const shown = wanted ? clean.filter((line) => line.toLowerCase().includes(wanted)) : clean;
    if (!shown.length) return;
    const chunk = document.createElement("div");
    chunk.className = shown.length > 20 ? "lines many" : "lines";
    chunk.textContent = `${shown.join("\n")}\n`;
    this.element.append(chunk);
  }
}

/** @param {string} path @param {AbortSignal} signal @param {LogLines} log */
async function readOnce(path, signal, log) {
  log.clear();
  try {
    await readText(await send(path, { signal, headers: { accept: "*/*" } }), (text) => log.append(text));
  } catch (error) {
    if (!signal.aborted) log.append(messageOf(error));
  }
}

/**
 * Follow the log at `path` while it is shown, and while the tab is seen.
 *
 * @param {{id: string, label: string, path: string, filter?: string, isFollowing?: boolean, isEndless?: boolean}} props
 *   A log that is not endless is read once.
 */
export function Log({ id, label, path, filter = "", isFollowing = true, isEndless = true }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const lines = useRef(/** @type {LogLines | null} */ (null));
  const isSeen = isVisible.value;
  useEffect(() => {
    if (!element.current || !isSeen) return undefined;
    const log = (lines.current ??= new LogLines(element.current));
    log.configure(filter, isFollowing);
    const aborter = new AbortController();
    /** @param {Error} error Of a log that may not be read; a stream that has ended begins again. */
    const refuse = (error) => error instanceof Failure && error.status < 500 && log.append(error.message);
    if (isEndless) followAgain(path, aborter.signal, () => log.clear(), (text) => log.append(text), refuse);
    else readOnce(path, aborter.signal, log);
    return () => aborter.abort();
  }, [path, isSeen]);
  useEffect(() => lines.current?.configure(filter, isFollowing), [filter, isFollowing]);
  return html`<pre id=${id} class="log" tabindex="0" aria-label=${label} ref=${element}></pre>`;
}
