// How programs connect: snippets for the chosen model at the address of this page.

import { html, useState } from "../vendor/preact.js";
import { ROOT } from "../api.js";
import { copy, quoted } from "../capture.js";
import { byName } from "../format.js";
import { useJson } from "../parts.js";
import { route } from "../router.js";
import { models } from "../store.js";

/**
 * Return the snippets for a model: name -> what it is for, and its text.
 *
 * Quoted JSON is a valid literal of Python and TOML too.
 *
 * @param {string} base address of the proxy, without /v1 @param {string} model
 * @returns {{id: string, title: string, note: string, text: string}[]}
 */
export function snippetsOf(base, model) {
  const name = JSON.stringify(model);
  const body = JSON.stringify({ model, messages: [{ role: "user", content: "Hello" }] });
  return [
    {
      id: "curl", title: "curl", note: "The key may be any text where none is configured.",
      text: `curl ${quoted(`${base}/v1/chat/completions`)} \\
  -H "Authorization: Bearer \${SWAPCHART_API_KEY:-none}" \\
  -H 'Content-Type: application/json' \\
  -d ${quoted(body)}`,
    },
    {
      id: "openai", title: "Python, package openai", note: "pip install openai",
      text: `import os

from openai import OpenAI

client = OpenAI(base_url="${base}/v1", api_key=os.environ.get("SWAPCHART_API_KEY", "none"))
response = client.chat.completions.create(
    model=${name},
    messages=[{"role": "user", "content": "Hello"}],
)
print(response.choices[0].message.content)`,
    },
    {
      id: "anthropic", title: "Python, package anthropic", note: "pip install anthropic",
      text: `import os

from anthropic import Anthropic

client = Anthropic(base_url="${base}", api_key=os.environ.get("SWAPCHART_API_KEY", "none"))
message = client.messages.create(
    model=${name},
    max_tokens=200,
    messages=[{"role": "user", "content": "Hello"}],
)
print(message.content[0].text)`,
    },
    {
      id: "environment", title: "Environment variables", note: "Most programs that use OpenAI's or Anthropic's libraries read these.",
      text: `export OPENAI_BASE_URL=${quoted(`${base}/v1`)}
export OPENAI_API_KEY="\${SWAPCHART_API_KEY:-none}"
export ANTHROPIC_BASE_URL=${quoted(base)}
export ANTHROPIC_API_KEY="\${SWAPCHART_API_KEY:-none}"`,
    },
    {
      id: "aider", title: "aider", note: "The weak model writes commit messages; see docs/clients.md.",
      text: `export OPENAI_API_BASE=${quoted(`${base}/v1`)}
export OPENAI_API_KEY="\${SWAPCHART_API_KEY:-none}"
export AIDER_MODEL=${quoted(`openai/${model}`)}
export AIDER_WEAK_MODEL="$AIDER_MODEL"
aider`,
    },
    {
      id: "claude", title: "Claude Code", note: "The second model writes titles: with the same name it causes no swap; see docs/clients.md.",
      text: `export ANTHROPIC_BASE_URL=${quoted(base)}
export ANTHROPIC_API_KEY="\${SWAPCHART_API_KEY:-none}"
export ANTHROPIC_MODEL=${quoted(model)}
export ANTHROPIC_DEFAULT_HAIKU_MODEL="$ANTHROPIC_MODEL"
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
claude`,
    },
    {
      id: "opencode", title: "opencode", note: "In opencode.json; see docs/recipes.md.",
      text: JSON.stringify(
        {
          $schema: "https://opencode.ai/config.json",
          provider: {
            swapchart: {
              npm: "@ai-sdk/openai-compatible", name: "swapchart",
              options: { baseURL: `${base}/v1`, apiKey: "{env:SWAPCHART_API_KEY}" },
              models: { [model]: {} },
            },
          },
          model: `swapchart/${model}`,
        },
        null,
        2,
      ),
    },
  ];
}

/** Return a model that is loaded; empty if none is known to be. */
const readyModel = () => [...(models.value?.values() ?? [])].find((row) => row.state === "ready")?.id ?? "";

export default function Connect() {
  const { value, problem } = useJson("/v1/models");
  /** @type {string[]} */
  const names = (value?.data ?? []).map((/** @type {any} */ record) => record.id).sort(byName);
  const [chosen, setChosen] = useState(() => route.value.query.get("of") ?? readyModel());
  const model = names.includes(chosen) || !value ? chosen : (names[0] ?? "");
  const base = location.origin + ROOT;
  return html`
    <section id="page-connect" aria-labelledby="connect-title">
      <div class="title">
        <h1 id="connect-title">Connect</h1>
        <label>Model <select id="connect-model" value=${model} onChange=${(/** @type {any} */ event) => setChosen(event.target.value)}>
          ${names.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select></label>
      </div>
      ${problem && html`<p class="notice" role="alert">${problem}</p>`}
      <section class="card" aria-labelledby="addresses-title">
        <h2 id="addresses-title">Addresses</h2>
        <dl class="facts-list">
          <dt>OpenAI</dt><dd><code id="openai-base">${base}/v1</code></dd>
          <dt>Anthropic</dt><dd><code>${base}</code></dd>
          <dt>Key</dt><dd>an API key of the configuration; any text where none is configured</dd>
        </dl>
      </section>
      ${model &&
      snippetsOf(base, model).map(
        (each) => html`
          <section key=${each.id} class="card" aria-labelledby=${`title-${each.id}`}>
            <div class="title">
              <h2 id=${`title-${each.id}`}>${each.title}</h2>
              <p class="quiet">${each.note}</p>
              <button type="button" aria-label=${`Copy ${each.title}`} onClick=${() => copy(each.text)}>Copy</button>
            </div>
            <pre id=${`snippet-${each.id}`} class="log snippet" tabindex="0">${each.text}</pre>
          </section>`,
      )}
    </section>`;
}
