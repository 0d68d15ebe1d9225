// Captured requests: headers and bodies as text, and the command that sends the request again.

import { html, useEffect, useRef } from "./vendor/preact.js";
import { ROOT, say } from "./api.js";

/** Headers that curl makes itself, or that hold a key. */
const NOT_COPIED = /^(?:host|content-length|connection|accept-encoding|user-agent|authorization|x-api-key|cookie|x-request-id|sec-.*|origin|referer)$/;

/** Return a captured body as text. @param {string} packed in base64 */
function decoded(packed) {
  const bytes = Uint8Array.from(atob(packed ?? ""), (letter) => letter.charCodeAt(0));
  return new TextDecoder().decode(bytes);
}

/** Return a captured body to read: JSON on many lines, everything else as it is. @param {string} packed */
function bodyText(packed) {
  const text = decoded(packed);
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** @param {Record<string, string> | null} headers */
const headerLines = (headers) => Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`).join("\n");

/** Quote a word for a POSIX shell. @param {string} text */
export const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** Return the command that sends a captured request again; keys are left to a variable. @param {any} capture */
export function curlOf(capture) {
  const headers = Object.entries(capture.req_headers ?? {});
  const parts = [`curl ${quoted(location.origin + ROOT + capture.req_path)}`];
  if (headers.some(([name]) => /^(?:authorization|x-api-key)$/i.test(name))) {
    parts.push('-H "Authorization: Bearer $SWAPCHART_API_KEY"');
  }
  for (const [name, value] of headers) {
    if (!NOT_COPIED.test(name.toLowerCase())) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  }
  const body = decoded(capture.req_body);
  if (body) parts.push(`--data-raw ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

/** Put a text into the clipboard, also where the page was not loaded by TLS. @param {string} text */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("Copied.");
}

/** A captured request and its response. @param {{id: number, found: any, close: () => void}} props */
export function Capture({ id, found, close }) {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => dialog.current?.showModal(), []);
  const parts = [
    found.req_path, headerLines(found.req_headers), bodyText(found.req_body), "────",
    headerLines(found.resp_headers), bodyText(found.resp_body),
  ];
  return html`
    <dialog id="capture-dialog" ref=${dialog} aria-labelledby="capture-title" onClose=${close}>
      <div class="title">
        <h2 id="capture-title">Request ${id}</h2>
        <button type="button" onClick=${() => copy(curlOf(found))}>Copy as curl</button>
        <button type="button" onClick=${() => dialog.current?.close()}>Close</button>
      </div>
      <pre id="capture" class="log" tabindex="0">${parts.filter(Boolean).join("\n\n")}</pre>
    </dialog>`;
}
