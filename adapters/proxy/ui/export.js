// Finished requests as files: CSV for spreadsheets, JSON for programs.

import { getJson } from "./api.js";

const PAGE = 999;
const MAX_ROWS = 100_000;

/** Columns of the CSV file: name -> value of a row. @type {Record<string, (row: any) => unknown>} */
const COLUMNS = {
  id: (row) => row.id, timestamp: (row) => row.timestamp, model: (row) => row.model, path: (row) => row.req_path,
  status: (row) => row.resp_status_code, error: (row) => row.error_msg, prompt_tokens: (row) => row.tokens.input_tokens,
  cached_tokens: (row) => row.tokens.cache_tokens, generated_tokens: (row) => row.tokens.output_tokens,
  prompt_per_second: (row) => row.tokens.prompt_per_second, tokens_per_second: (row) => row.tokens.tokens_per_second,
  wait_ms: (row) => row.wait_ms, queue_ms: (row) => row.wait?.queue_ms, evict_ms: (row) => row.wait?.evict_ms,
  start_ms: (row) => row.wait?.start_ms, first_byte_ms: (row) => row.first_byte_ms, duration_ms: (row) => row.duration_ms,
  request_id: (row) => row.request_id,
};

/** Return a cell of a CSV file; a text that a spreadsheet would run as a formula gets a quote before it. @param {unknown} value */
function cell(value) {
  const plain = String(value ?? "");
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(plain) ? `'${plain}` : plain;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Return rows of /api/metrics/activity as CSV. @param {any[]} rows */
export function csvOf(rows) {
  const lines = rows.map((row) => Object.values(COLUMNS).map((valueOf) => cell(valueOf(row))).join(","));
  return [Object.keys(COLUMNS).join(","), ...lines, ""].join("\r\n");
}

/** Save all rows that a query finds as a file. @param {URLSearchParams} query without page and limit @param {"csv" | "json"} kind */
export async function save(query, kind) {
  /** @type {any[]} */
  const rows = [];
  for (let page = 1; rows.length < MAX_ROWS; page += 1) {
    const given = new URLSearchParams(query);
    given.set("limit", String(PAGE));
    given.set("page", String(page));
    const found = await getJson(`/api/metrics/activity?${given}`);
    rows.push(...found.data);
    if (page >= found.total_pages) break;
  }
  const text = kind === "csv" ? csvOf(rows) : JSON.stringify(rows, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind === "csv" ? "text/csv" : "application/json" }));
  link.download = `requests.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
