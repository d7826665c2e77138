// What the page asks of /api/v1, with the token of the person who looks.
//
// Guards: the token is in sessionStorage and in the Authorization header, never in an address; a
// token in the fragment (#token=) is taken over and taken out of the address before anything else.
import { useCallback, useEffect, useRef, useState } from "./html.js";

const KEY = "edge-token";
const BASE = new URL("../api/v1/", document.baseURI);
const TIMEOUT_MS = 30_000;

let token = null;
let offsetMs = 0;
const watchers = new Set();

try {
  token = sessionStorage.getItem(KEY);
} catch {
  token = null;
}
{
  const found = /^#token=([^&]+)/.exec(location.hash);
  if (found) {
    history.replaceState(null, "", location.pathname + location.search + "#/");
    keep(decodeURIComponent(found[1]).trim());
  }
}

/** The server's clock, ms since 1970: a reader's clock may be wrong. */
export function nowMs() {
  return Date.now() + offsetMs;
}

export function hasToken() {
  return token !== null;
}

/** Call `heard` when the token came or went. Returns what ends that. */
export function onToken(heard) {
  watchers.add(heard);
  return () => watchers.delete(heard);
}

export function keep(text) {
  token = text || null;
  try {
    if (token === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, token);
  } catch {
    // Storage is switched off: the token lives as long as the page.
  }
  for (const heard of watchers) heard(token);
}

export class Problem extends Error {
  /** `status` 0: no answer came. `field`: the part of what was sent that is wrong, "" for none. */
  constructor(status, detail, advice = "", field = "") {
    super(detail);
    this.status = status;
    this.advice = advice;
    this.field = field;
  }
}

/** A request. `path` is below /api/v1/. Returns the Response; raises Problem. */
export async function request(path, { method = "GET", body, signal, headers = {} } = {}) {
  const used = token;
  let answer;
  try {
    answer = await fetch(new URL(path, BASE), {
      method,
      signal,
      cache: "no-store",
      credentials: "omit",
      headers: { Authorization: `Bearer ${used}`, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError" && signal?.reason !== "timeout") throw error;
    throw new Problem(0, "The server does not answer.");
  }
  const date = Date.parse(answer.headers.get("Date") ?? "");
  if (!Number.isNaN(date) && Math.abs(date - Date.now()) > 2000) offsetMs = date - Date.now();
  else offsetMs = 0;
  if (answer.ok) return answer;
  let said = {};
  try {
    said = await answer.json();
  } catch {
    // Not a problem of ours: something between us and the server speaks.
  }
  if (answer.status === 401 && used === token) keep(null);
  const text = said.detail || `The server answered ${answer.status}.`;
  throw new Problem(answer.status, text, said.advice ?? "", said.field ?? "");
}

/** `path` with what of `query` is not empty. */
export function addressed(path, query = {}) {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((one) => [name, one]),
  );
  const text = new URLSearchParams(
    pairs.filter(([, value]) => value !== "" && value !== undefined && value !== null),
  ).toString();
  return text ? `${path}?${text}` : path;
}

const asked = new Map();

/** What `path` answers. Who asks the same at the same moment gets the same answer. */
export async function get(path, query, signal) {
  const address = addressed(path, query);
  if (!asked.has(address)) {
    const answer = fetched(address).finally(() => {
      if (asked.get(address) === answer) asked.delete(address);
    });
    asked.set(address, answer);
  }
  const left = new Promise((_, leave) => {
    signal?.addEventListener("abort", () => leave(new DOMException("left", "AbortError")), { once: true });
  });
  return await Promise.race([asked.get(address), left]);
}

async function fetched(address) {
  const own = new AbortController();
  const timer = setTimeout(() => own.abort("timeout"), TIMEOUT_MS);
  try {
    return parsed(await (await request(address, { signal: own.signal })).text());
  } finally {
    clearTimeout(timer);
  }
}

// What a terminal or a reader's eye would obey: control characters but tab and newline, and those
// that turn the direction of what follows. Shown by number, as `edge-fleet` does in a terminal.
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** JSON of the server, each text of it made visible. */
export function parsed(text) {
  return JSON.parse(text, (_, value) => (typeof value === "string" ? visible(value) : value));
}

export function visible(text) {
  return text.replace(UNSEEN, (one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** A write. `key`: the same for each repetition of one wish, so that it is done once. */
export async function post(path, body, key) {
  asked.clear();
  return await (
    await request(path, {
      method: "POST",
      body,
      headers: { "Content-Type": "application/json", "Idempotency-Key": key },
    })
  ).json();
}

export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");
}

/**
 * What `path` answers, asked again every `everyMs` while the page is seen (0: once).
 * Returns {data, error, loading, reload}. What was there stays while it is asked anew.
 */
export function useGet(path, query = {}, everyMs = 0) {
  const address = path === null ? null : addressed(path, query);
  const [state, put] = useState({ data: null, error: null, loading: true, address });
  const [round, again] = useState(0);
  const reload = useCallback(() => {
    asked.delete(address); // an answer that is on its way may be older than what is reloaded for
    again((n) => n + 1);
  }, [address]);
  const shown = useRef(address);
  useEffect(() => {
    if (address === null) return undefined;
    const leaving = new AbortController();
    let timer = 0;
    if (shown.current !== address) {
      shown.current = address;
      put({ data: null, error: null, loading: true, address });
    }
    async function ask() {
      clearTimeout(timer);
      try {
        const data = await get(address, {}, leaving.signal);
        if (!leaving.signal.aborted) put({ data, error: null, loading: false, address });
      } catch (error) {
        if (error.name === "AbortError") return;
        put((was) => ({ data: was.data, error, loading: false, address }));
      }
      if (everyMs && !leaving.signal.aborted) timer = setTimeout(seen, everyMs);
    }
    function seen() {
      if (document.hidden) document.addEventListener("visibilitychange", seen, { once: true });
      else ask();
    }
    ask();
    return () => {
      leaving.abort("left");
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [address, round, everyMs]);
  const fresh = state.address === address;
  return {
    data: fresh ? state.data : null,
    error: fresh ? state.error : null,
    loading: fresh ? state.loading : true,
    reload,
  };
}

/**
 * A list that comes in pages: {items, error, loading, next, previous, page, reload}.
 * `next` and `previous` are functions, or null where there is nothing.
 */
export function usePages(path, query = {}, everyMs = 0) {
  const base = addressed(path, query);
  const [place, go] = useState({ base, cursors: [""] });
  const cursors = place.base === base ? place.cursors : [""];
  const cursor = cursors[cursors.length - 1];
  const found = useGet(path, { ...query, cursor }, everyMs);
  const following = found.data?.next ?? null;
  return {
    ...found,
    items: found.data?.items ?? null,
    page: cursors.length,
    next: following && (() => go({ base, cursors: [...cursors, following] })),
    previous: cursors.length > 1 ? () => go({ base, cursors: cursors.slice(0, -1) }) : null,
  };
}
