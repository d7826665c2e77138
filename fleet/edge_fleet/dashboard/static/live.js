// What happens in the fleet, as it happens: server-sent events, read by fetch, since EventSource
// sends no Authorization header. https://html.spec.whatwg.org/multipage/server-sent-events.html
//
// Guards: one connection for the page; after a break it goes on after the last thing that was heard
// (Last-Event-ID), later and later while the server stays away.
import { hasToken, parsed, Problem, request } from "./api.js";
import { useEffect, useState } from "./html.js";

const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15_000;
const SILENCE_MS = 45_000; // three heartbeats

const listeners = new Set();
const watchers = new Set();
let state = "connecting";
let running = null;

/** Frames of a stream: {kind, data, id}. `push` takes text and returns those that it completes. */
export function frames() {
  let rest = "";
  return (text) => {
    const blocks = (rest + text).split("\n\n");
    rest = blocks.pop();
    return blocks.map(frame).filter((one) => one.data !== "");
  };
}

function frame(block) {
  const found = { kind: "message", data: "", id: "" };
  for (const line of block.split("\n")) {
    const at = line.indexOf(":");
    const name = line.slice(0, at);
    const value = line.slice(at + 1).replace(/^ /, "");
    if (name === "event") found.kind = value;
    if (name === "data") found.data += value;
    if (name === "id") found.id = value;
  }
  return found;
}

function become(next) {
  if (state === next) return;
  state = next;
  for (const heard of watchers) heard(state);
}

async function run(signal) {
  let last = "";
  let waitMs = FIRST_WAIT_MS;
  while (!signal.aborted && hasToken()) {
    try {
      await once(signal, last, (id) => {
        last = id || last;
        waitMs = FIRST_WAIT_MS;
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.status === 400) last = "";
    }
    if (signal.aborted) return;
    become("broken");
    await new Promise((done) => {
      const timer = setTimeout(done, waitMs);
      addEventListener("online", done, { once: true });
      signal.addEventListener("abort", () => (clearTimeout(timer), done()), { once: true });
    });
    waitMs = Math.min(waitMs * 2, LONGEST_WAIT_MS);
  }
}

async function once(signal, last, heard) {
  const own = new AbortController();
  const stop = () => own.abort("left");
  signal.addEventListener("abort", stop, { once: true });
  let timer = setTimeout(stop, SILENCE_MS);
  try {
    const headers = last ? { "Last-Event-ID": last } : {};
    const answer = await request("events/stream", { signal: own.signal, headers });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const push = frames();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE_MS);
      become("live");
      heard("");
      for (const one of push(value)) {
        heard(one.id);
        const told = { kind: one.kind, data: parsed(one.data) };
        for (const listener of listeners) listener(told);
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
  }
}

export function start() {
  running?.abort();
  running = new AbortController();
  become("connecting");
  run(running.signal);
}

export function stop() {
  running?.abort();
  running = null;
}

/** "connecting", "live" or "broken". */
export function useConnection() {
  const [now, put] = useState(state);
  useEffect(() => {
    put(state);
    watchers.add(put);
    return () => watchers.delete(put);
  }, []);
  return now;
}

/** Call `heard` with each {kind, data}: kind is event, alarm-opened or alarm-resolved. */
export function useLive(heard) {
  useEffect(() => {
    listeners.add(heard);
    return () => listeners.delete(heard);
  }, [heard]);
}
