// Requests to the proxy: JSON, commands, and endless streams of text.

import { signal } from "./vendor/preact.js";
import { messageOf } from "./format.js";

const KEY = "swapchart.key";
const DECLINED = "swapchart.declined";
const RETRY_MS = [1000, 2000, 5000];
/** Prefix of the proxy's paths: a reverse proxy may serve it below a path of its own. */
export const ROOT = new URL("..", import.meta.url).pathname.replace(/\/$/, "");
/** Codes of rejections that no API key changes: their messages name the key of the configuration. */
const NOT_FOR_A_KEY = new Set(["origin_not_allowed", "host_not_allowed"]);

/** A rejection or failure, with the proxy's own message. */
export class Failure extends Error {
  /** @param {number} status @param {string} message @param {any} [detail] the object `error` of the body */
  constructor(status, message, detail) {
    super(message);
    this.status = status;
    this.detail = detail;
  }
}

/** Why an API key is asked for; empty while none is. */
export const keyWanted = signal("");
/** Why this page's requests are rejected, whatever the key; empty while they are not. */
export const rejected = signal("");
/** Message about the last command that failed; disappears after some seconds. */
export const said = signal("");

/** @type {ReturnType<typeof setTimeout> | undefined} */
let saying;

/** Show a message for some seconds. @param {string} text */
export function say(text) {
  clearTimeout(saying);
  said.value = text;
  saying = setTimeout(() => (said.value = ""), 8000);
}

/** Show an error, unless the page asks for a key because of it. @param {unknown} error */
export function complain(error) {
  if (!keyWanted.value) say(messageOf(error));
}

/** Use an API key in this tab until it is closed. @param {string} key */
export function useKey(key) {
  sessionStorage.setItem(KEY, key.trim());
  sessionStorage.removeItem(DECLINED);
  keyWanted.value = "";
}

/** Go on with the rights that there are: from now on only commands ask for another key. */
export function declineKey() {
  sessionStorage.setItem(DECLINED, "yes");
  keyWanted.value = "";
}

/**
 * Send a request. A key that was typed goes along; else the browser's own credentials, if any.
 *
 * @param {string} path
 * @param {Omit<RequestInit, "headers"> & {headers?: Record<string, string>}} [given]
 * @returns {Promise<Response>} A response with a status below 400.
 */
export async function send(path, given = {}) {
  const key = sessionStorage.getItem(KEY);
  /** @type {Record<string, string>} */
  const headers = { accept: "application/json", ...given.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  const credentials = key ? "omit" : "same-origin";
  const response = await fetch(ROOT + path, { ...given, headers, credentials, cache: "no-store" });
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  let detail = null;
  try {
    detail = (await response.json()).error;
    message = detail.message ?? message;
  } catch {
    // not the proxy's: its status must do
  }
  if (NOT_FOR_A_KEY.has(detail?.code)) rejected.value = message;
  else if (response.status === 401 || response.status === 403) {
    const isCurrent = key === sessionStorage.getItem(KEY); // else another one was typed meanwhile
    if (isCurrent && response.status === 401) sessionStorage.removeItem(KEY);
    if (!isCurrent) throw new Failure(response.status, message, detail);
    if (!sessionStorage.getItem(DECLINED) || (given.method ?? "GET") !== "GET") keyWanted.value = message;
  }
  throw new Failure(response.status, message, detail);
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
export async function getJson(path, signal) {
  return (await send(path, { signal })).json();
}

/** Send a JSON body. @param {string} method @param {string} path @param {unknown} [body] @param {AbortSignal} [signal] */
export function sendJson(method, path, body, signal) {
  if (body === undefined) return send(path, { method, signal });
  const headers = { "content-type": "application/json" };
  return send(path, { method, body: JSON.stringify(body), headers, signal });
}

/** Carry out a command of the user; shows why it failed. @param {string} method @param {string} path @param {unknown} [body] */
export async function command(method, path, body) {
  try {
    return await sendJson(method, path, body);
  } catch (error) {
    complain(error);
    return null;
  }
}

/**
 * Pass on the text of a response as it arrives.
 *
 * @param {Response} response
 * @param {(text: string) => void} take
 */
export async function readText(response, take) {
  if (!response.body) return;
  const decoder = new TextDecoder();
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    take(decoder.decode(value, { stream: true }));
  }
}

/**
 * Follow `path` until the signal aborts, and again whenever it breaks off.
 *
 * @param {string} path
 * @param {AbortSignal} signal
 * @param {() => void} begin called before each try
 * @param {(text: string) => void} take
 * @param {(error: Error) => void} [lost]
 */
export async function followAgain(path, signal, begin, take, lost = () => {}) {
  for (let tries = 0; !signal.aborted; tries += 1) {
    try {
      begin();
      const response = await send(path, { signal, headers: { accept: "*/*" } });
      await readText(response, (text) => {
        tries = 0;
        take(text);
      });
      lost(new Error("the proxy has ended the stream"));
    } catch (error) {
      if (signal.aborted) return;
      lost(error instanceof Error ? error : new Error(String(error)));
      if (error instanceof Failure && error.status < 500) return;
    }
    await pause(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)], signal);
  }
}

/** @param {number} ms @param {AbortSignal} signal @returns {Promise<void>} */
function pause(ms, signal) {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      done();
    });
  });
}
