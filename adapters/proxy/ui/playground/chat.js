// Chat with a model: the response as it is streamed, and where its time went.

import { html, useEffect, useRef, useState } from "../vendor/preact.js";
import { readText, sendJson } from "../api.js";
import { messageOf, seconds } from "../format.js";
import { NumberField } from "./fields.js";

/** @typedef {{role: "user" | "assistant", content: string, reasoning?: string, timing?: string, problem?: string}} Turn */
/** @typedef {{system: string, temperature: string, maxTokens: string}} Settings */

/** Collects a streamed chat completion. */
class Collector {
  /** @param {(turn: Turn) => void} show */
  constructor(show) {
    this.show = show;
    this.rest = "";
    this.began = performance.now();
    this.content = "";
    this.reasoning = "";
    this.firstAt = 0;
    /** @type {any} */
    this.usage = null;
    /** @type {any} */
    this.timings = null;
    this.problem = "";
  }

  /** @param {string} text of the stream */
  take(text) {
    const frames = (this.rest + text).split(/\r?\n\r?\n/);
    this.rest = frames.pop() ?? "";
    for (const frame of frames) this.takeFrame(frame);
    this.show(this.turn(""));
  }

  /** @param {string} frame */
  takeFrame(frame) {
    const line = frame.split(/\r?\n/).find((each) => each.startsWith("data:"));
    const data = line?.slice(5).trim();
    if (!data || data === "[DONE]") return;
    const value = JSON.parse(data);
    if (value.error) this.problem = value.error.message ?? String(value.error);
    const delta = value.choices?.[0]?.delta ?? {};
    if (!this.firstAt && delta.content) this.firstAt = performance.now();
    this.content += delta.content ?? "";
    this.reasoning += delta.reasoning_content ?? delta.reasoning ?? "";
    this.usage = value.usage ?? this.usage;
    this.timings = value.timings ?? this.timings;
  }

  /** @param {string} timing @returns {Turn} */
  turn(timing) {
    return { role: "assistant", content: this.content, reasoning: this.reasoning, timing, problem: this.problem };
  }

  /** Return the response with its times. @returns {Turn} */
  end() {
    const now = performance.now();
    const parts = [];
    if (this.firstAt) parts.push(`first token after ${seconds((this.firstAt - this.began) / 1000)}`);
    const tokens = this.usage?.completion_tokens;
    if (tokens) parts.push(`${this.usage.prompt_tokens ?? "?"} prompt and ${tokens} generated tokens`);
    const measured = tokens && this.firstAt && now > this.firstAt ? (1000 * tokens) / (now - this.firstAt) : 0;
    const rate = this.timings?.predicted_per_second ?? measured;
    if (rate) parts.push(`${rate.toFixed(1)} tokens/s`);
    parts.push(`${seconds((now - this.began) / 1000)} in all`);
    return this.turn(parts.join(" · "));
  }
}

/**
 * Return whether a turn is part of the conversation: a message without a response is not, since the templates of
 * many models reject two messages of the user in a row.
 *
 * @param {Turn} turn @param {number} at @param {Turn[]} turns
 */
function isSaid(turn, at, turns) {
  return turn.content !== "" && (turn.role === "assistant" || at === turns.length - 1 || turns[at + 1].content !== "");
}

/** Return the body of the request. @param {string} model @param {Turn[]} turns @param {Settings} settings */
function bodyOf(model, turns, settings) {
  const messages = turns.filter(isSaid).map(({ role, content }) => ({ role, content }));
  if (settings.system.trim()) messages.unshift({ role: /** @type {any} */ ("system"), content: settings.system });
  /** @type {Record<string, unknown>} */
  const body = { model, messages, stream: true, stream_options: { include_usage: true } };
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  return body;
}

/** @param {{model: string}} props */
export function Chat({ model }) {
  const [turns, setTurns] = useState(/** @type {Turn[]} */ ([]));
  const [draft, setDraft] = useState("");
  const [settings, setSettings] = useState({ system: "", temperature: "", maxTokens: "" });
  const aborter = useRef(/** @type {AbortController | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  useEffect(() => () => aborter.current?.abort(), []);

  /** @param {Event} [event] */
  const submit = async (event) => {
    event?.preventDefault();
    if (isBusy || !draft.trim() || !model) return;
    /** @type {Turn[]} */
    const asked = [...turns, { role: "user", content: draft }];
    const collector = new Collector((turn) => setTurns([...asked, turn]));
    setDraft("");
    setBusy(true);
    setTurns([...asked, { role: "assistant", content: "" }]);
    aborter.current = new AbortController();
    try {
      const response = await sendJson("POST", "/v1/chat/completions", bodyOf(model, asked, settings), aborter.current.signal);
      await readText(response, (text) => collector.take(text));
    } catch (error) {
      collector.problem = aborter.current.signal.aborted ? "stopped" : messageOf(error);
      if (!collector.content) setDraft((old) => old || draft); // to be sent again
    }
    setTurns([...asked, collector.end()]);
    setBusy(false);
  };
  /** @param {KeyboardEvent} event */
  const press = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  /** @param {keyof Settings} name @returns {(value: string) => void} */
  const set = (name) => (value) => setSettings({ ...settings, [name]: value });
  return html`
    <details class="settings">
      <summary>Settings</summary>
      <label class="wide">System prompt <textarea id="system-prompt" rows="2" value=${settings.system}
        onInput=${(/** @type {any} */ e) => set("system")(e.target.value)}></textarea></label>
      <${NumberField} id="temperature" label="Temperature" min="0" max="2" step="0.1" value=${settings.temperature} set=${set("temperature")} />
      <${NumberField} id="max-tokens" label="Most tokens" min="1" max="1000000" step="1" value=${settings.maxTokens} set=${set("maxTokens")} />
    </details>
    <div id="conversation" class="conversation" role="log" aria-label="Conversation" tabindex="0">
      ${turns.map((turn, index) => html`<${TurnView} key=${index} turn=${turn} isLast=${isBusy && index === turns.length - 1} />`)}
    </div>
    <form id="chat-form" onSubmit=${submit}>
      <label class="wide" for="prompt">Message</label>
      <textarea id="prompt" rows="3" value=${draft} onInput=${(/** @type {any} */ e) => setDraft(e.target.value)} onKeyDown=${press}></textarea>
      <div class="buttons">
        <button type="submit" class="primary" disabled=${isBusy || !draft.trim()}>Send</button>
        <button type="button" id="stop" disabled=${!isBusy} onClick=${() => aborter.current?.abort()}>Stop</button>
        <button type="button" id="clear" disabled=${isBusy || !turns.length} onClick=${() => setTurns([])}>Clear</button>
      </div>
    </form>`;
}

/** @param {{turn: Turn, isLast: boolean}} props */
function TurnView({ turn, isLast }) {
  return html`
    <article class=${`turn ${turn.role}`} aria-label=${turn.role === "user" ? "You" : "Model"}>
      ${turn.reasoning && html`<details open=${isLast && !turn.content}><summary>Reasoning</summary><p class="text quiet" dir="auto">${turn.reasoning}</p></details>`}
      <p class="text" dir="auto">${turn.content || (isLast ? "…" : "")}</p>
      ${turn.problem && html`<p class="bad">${turn.problem}</p>`}
      ${turn.timing && html`<p class="quiet timing">${turn.timing}</p>`}
    </article>`;
}
