// Embeddings, reranking, images, speech and transcription.

import { html, useEffect, useState } from "../vendor/preact.js";
import { send, sendJson } from "../api.js";
import { RunButtons, TextField, useRun } from "./fields.js";

/** @param {string} text */
const linesOf = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** @param {string} path @param {unknown} body @param {AbortSignal} signal */
const ask = async (path, body, signal) => (await sendJson("POST", path, body, signal)).json();

/** Return the cosine of the angle between two vectors. @param {number[]} a @param {number[]} b */
function cosine(a, b) {
  /** @param {number[]} x @param {number[]} y */
  const dot = (x, y) => x.reduce((sum, each, at) => sum + each * (y[at] ?? 0), 0);
  return dot(a, b) / Math.max(Math.sqrt(dot(a, a) * dot(b, b)), 1e-12);
}

/** @param {{model: string}} props */
export function Embeddings({ model }) {
  const [text, setText] = useState("A cat sat on the mat.\nA kitten lay on the rug.\nThe rocket reached orbit.");
  const run = useRun((signal) => ask("/v1/embeddings", { model, input: linesOf(text) }, signal));
  /** @type {number[][]} */
  const vectors = run.value?.data.map((/** @type {any} */ each) => each.embedding) ?? [];
  return html`
    <form onSubmit=${run.submit}>
      <${TextField} id="embed-input" label="Texts, one a line" rows=${4} value=${text} set=${setText} />
      <${RunButtons} run=${run} name="Embed" isDisabled=${!linesOf(text).length} />
    </form>
    ${vectors.length > 0 &&
    html`
      <p>${vectors.length} vectors of ${vectors[0].length} dimensions. Cosine similarity of each pair:</p>
      <div class="scroll" tabindex="0" role="region" aria-label="Similarity">
        <table id="similarity">
          <tbody>
            ${vectors.map(
              (one, row) => html`
                <tr key=${row}><th scope="row">${row + 1}</th>
                  ${vectors.map((other, column) => html`<td key=${column} class="number">${cosine(one, other).toFixed(3)}</td>`)}</tr>`,
            )}
          </tbody>
        </table>
      </div>
      <details><summary>First vector</summary><pre class="log" tabindex="0">${vectors[0].join("\n")}</pre></details>`}`;
}

/** @param {{model: string}} props */
export function Rerank({ model }) {
  const [query, setQuery] = useState("Which animal purrs?");
  const [text, setText] = useState("Cats purr when they are content.\nRockets burn fuel.\nDogs bark.");
  const documents = linesOf(text);
  const run = useRun(async (signal) => ({ documents, ...(await ask("/v1/rerank", { model, query, documents }, signal)) }));
  const results = [...(run.value?.results ?? [])].sort((a, b) => b.relevance_score - a.relevance_score);
  return html`
    <form onSubmit=${run.submit}>
      <${TextField} id="rerank-query" label="Query" rows=${1} value=${query} set=${setQuery} />
      <${TextField} id="rerank-documents" label="Documents, one a line" rows=${4} value=${text} set=${setText} />
      <${RunButtons} run=${run} name="Rerank" isDisabled=${!documents.length || !query.trim()} />
    </form>
    ${results.length > 0 &&
    html`
      <ol id="ranking">
        ${results.map(
          (each) => html`<li key=${each.index}><span class="amount">${Number(each.relevance_score).toFixed(3)}</span> ${run.value.documents[each.index]}</li>`,
        )}
      </ol>`}`;
}

/** @param {{model: string}} props */
export function Images({ model }) {
  const [prompt, setPrompt] = useState("A lighthouse at dusk, watercolor");
  const [size, setSize] = useState("512x512");
  const run = useRun((signal) => ask("/v1/images/generations", { model, prompt, size, response_format: "b64_json" }, signal));
  return html`
    <form onSubmit=${run.submit}>
      <${TextField} id="image-prompt" label="Prompt" rows=${2} value=${prompt} set=${setPrompt} />
      <label>Size <select value=${size} onChange=${(/** @type {any} */ e) => setSize(e.target.value)}>
        ${["256x256", "512x512", "768x768", "1024x1024"].map((each) => html`<option key=${each} value=${each}>${each}</option>`)}
      </select></label>
      <${RunButtons} run=${run} name="Generate" isDisabled=${!prompt.trim()} />
    </form>
    <div id="images" class="images">
      ${(run.value?.data ?? []).map((/** @type {any} */ each, /** @type {number} */ index) => html`
        <img key=${index} alt=${each.revised_prompt ?? prompt} src=${each.b64_json ? `data:image/png;base64,${each.b64_json}` : each.url} />`)}
    </div>`;
}

/** @param {{model: string}} props */
export function Speech({ model }) {
  const [input, setInput] = useState("Models are swapped on demand.");
  const [voice, setVoice] = useState("");
  const [address, setAddress] = useState("");
  const run = useRun(async (signal) => {
    const response = await sendJson("POST", "/v1/audio/speech", { model, input, ...(voice && { voice }) }, signal);
    setAddress(URL.createObjectURL(await response.blob()));
    return true;
  });
  useEffect(() => () => URL.revokeObjectURL(address), [address]);
  return html`
    <form onSubmit=${run.submit}>
      <${TextField} id="speech-input" label="Text" rows=${3} value=${input} set=${setInput} />
      <label>Voice <input id="speech-voice" type="text" placeholder="default" value=${voice} onInput=${(/** @type {any} */ e) => setVoice(e.target.value)} /></label>
      <${RunButtons} run=${run} name="Speak" isDisabled=${!input.trim()} />
    </form>
    ${address && html`<audio id="speech" controls src=${address}></audio>`}`;
}

/** @param {{model: string}} props */
export function Transcription({ model }) {
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const run = useRun(async (signal) => {
    const form = new FormData();
    form.append("model", model); // first: the proxy reads no further than to the model's name
    form.append("file", /** @type {File} */ (file));
    const response = await send("/v1/audio/transcriptions", { method: "POST", body: form, signal });
    const text = await response.text();
    try {
      return JSON.parse(text).text ?? text;
    } catch {
      return text;
    }
  });
  return html`
    <form onSubmit=${run.submit}>
      <label>Audio file <input id="audio-file" type="file" accept="audio/*" onChange=${(/** @type {any} */ e) => setFile(e.target.files[0] ?? null)} /></label>
      <${RunButtons} run=${run} name="Transcribe" isDisabled=${!file} />
    </form>
    ${run.value && html`<p id="transcript" class="text" dir="auto">${run.value}</p>`}`;
}
