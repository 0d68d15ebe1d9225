// Try a model: chat, embeddings, reranking, images, speech, transcription.

import { html } from "../vendor/preact.js";
import { byName } from "../format.js";
import { useJson } from "../parts.js";
import { Chat } from "../playground/chat.js";
import { Embeddings, Images, Rerank, Speech, Transcription } from "../playground/media.js";
import { address, go, route } from "../router.js";
import { models } from "../store.js";

/** Name in the address -> title, component, and the capability that a model declares for it. @type {Record<string, {title: string, Part: any, needs?: string}>} */
const TASKS = {
  chat: { title: "Chat", Part: Chat },
  embeddings: { title: "Embeddings", Part: Embeddings },
  rerank: { title: "Rerank", Part: Rerank, needs: "reranker" },
  images: { title: "Images", Part: Images, needs: "image_generation" },
  speech: { title: "Speech", Part: Speech, needs: "audio_speech" },
  transcription: { title: "Transcription", Part: Transcription, needs: "audio_transcriptions" },
};

export default function Playground() {
  const { query } = route.value;
  const task = TASKS[query.get("task") ?? ""] ? /** @type {string} */ (query.get("task")) : "chat";
  const listed = useJson("/v1/models");
  /** @type {any[]} */
  const records = [...(listed.value?.data ?? [])].sort((a, b) => byName(a.id, b.id));
  const { needs, Part, title } = TASKS[task];
  const ready = [...(models.value?.values() ?? [])].find((row) => row.state === "ready");
  const fitting = needs && records.find((record) => record.capabilities?.[needs]);
  const model = query.get("model") || (fitting ? fitting.id : (ready?.id ?? records[0]?.id ?? ""));
  /** @param {Record<string, string>} changed */
  const show = (changed) => go(address("playground", { ...Object.fromEntries(query), ...changed }), { replace: true });
  const names = records.some((record) => record.id === model) || !model ? records : [{ id: model }, ...records];
  return html`
    <section id="page-playground" aria-labelledby="playground-title">
      <div class="title">
        <h1 id="playground-title">Playground</h1>
        <label>Model <select id="playground-model" value=${model} onChange=${(/** @type {any} */ event) => show({ model: event.target.value })}>
          ${names.map((record) => html`<option key=${record.id} value=${record.id}>${record.id}${record.status?.value === "loaded" ? " (loaded)" : ""}</option>`)}
        </select></label>
      </div>
      <nav class="tabs" aria-label="Tasks">
        ${Object.entries(TASKS).map(
          ([id, entry]) => html`
            <a key=${id} href=${address("playground", { task: id, ...(query.get("model") && { model }) })} aria-current=${id === task ? "page" : null}>${entry.title}</a>`,
        )}
      </nav>
      <section class="card" aria-label=${title}>
        ${listed.problem && html`<p class="notice" role="alert">${listed.problem}</p>`}
        ${model && html`<${Part} key=${task} model=${model} />`}
        ${listed.value && !model && html`<p class="quiet">No models are configured.</p>`}
      </section>
    </section>`;
}
