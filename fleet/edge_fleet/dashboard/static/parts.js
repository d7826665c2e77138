// What every page is made of: states, tables, badges, times, dialogs, charts.
import { nowMs } from "./api.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";

// -- numbers and times ---------------------------------------------------------------------------

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export function number(value) {
  return value === null || value === undefined ? "–" : WHOLE.format(value);
}

export function short(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) < 10_000 ? WHOLE.format(value) : SHORT.format(value);
}

/** Three significant figures. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  return Number(Number(value).toPrecision(3)).toString();
}

export function percent(share, digits = 0) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  let rest = value;
  while (rest >= 1000 && at < units.length - 1) {
    rest /= 1000;
    at += 1;
  }
  return `${figure(rest)} ${units[at]}`;
}

/** A length of time: 45 s, 12 min, 3.5 h, 4 d. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const size = Math.abs(seconds);
  if (size < 1) return `${Math.round(seconds * 1000)} ms`;
  if (size < 90) return `${Math.round(seconds)} s`;
  if (size < 5400) return `${Math.round(seconds / 60)} min`;
  if (size < 36 * 3600) return `${figure(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} d`;
}

export function ago(iso, now = nowMs()) {
  if (!iso) return "never";
  const seconds = (now - Date.parse(iso)) / 1000;
  if (seconds < -5) return `in ${duration(-seconds)}`;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

/** A moment as "3 min ago", exact on hover and for screen readers' time element. */
export function Ago({ at }) {
  const [, tick] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => tick((n) => n + 1), 10_000);
    return () => clearInterval(timer);
  }, []);
  if (!at) return html`<span class="soft">never</span>`;
  return html`<time datetime=${at} title=${at.replace("T", " ").replace("Z", " UTC")}>
    ${ago(at)}
  </time>`;
}

export function plural(count, word) {
  return `${number(count)} ${word}${count === 1 ? "" : "s"}`;
}

const LONG_CHARS = 240;
const LONG_LINES = 4;

/** A text of any length: the beginning of a long one, and a button for the rest. */
export function Text({ children }) {
  const [open, put] = useState(false);
  const text = String(children ?? "");
  const start = text.split("\n").slice(0, LONG_LINES).join("\n").slice(0, LONG_CHARS);
  if (start === text) return html`<span class="detail">${text}</span>`;
  return html`<span class="detail">${open ? text : `${start}…`}
    <button class="quiet inline" aria-expanded=${open} onClick=${() => put(!open)}>
      ${open ? "less" : "more"}</button></span>`;
}

// -- states --------------------------------------------------------------------------------------

// Shape and word besides colour: a colour alone says nothing to one reader in twelve.
const STATES = {
  online: ["good", "M3 8.5l3.2 3.2L13 5"],
  silent: ["warn", "M8 4v4.6l3 1.8"],
  offline: ["off", "M4 4l8 8M12 4l-8 8"],
  alarm: ["bad", "M8 3.5v5.5M8 12v.4"],
  info: ["info", "M8 7v5M8 4.2v.4"],
};

export function Icon({ state }) {
  const [tone, path] = STATES[state] ?? STATES.info;
  return html`<svg class="icon ${tone}" viewBox="0 0 16 16" aria-hidden="true">
    <circle cx="8" cy="8" r="7.25" /><path d=${path} />
  </svg>`;
}

/** A device's state in its words: online, silent, offline. */
export function State({ state }) {
  return html`<span class="state"><${Icon} state=${state} />${state}</span>`;
}

/** `tone`: good, warn, bad, off, info. */
export function Badge({ tone = "off", children, title }) {
  return html`<span class="badge ${tone}" title=${title}>${children}</span>`;
}

export function Label({ name, value }) {
  return html`<span class="label"><span class="soft">${name}</span> ${value}</span>`;
}

// -- what is there instead of data -----------------------------------------------------------------

export function Loading({ what = "", rows = 5 }) {
  return html`<div class="loading" role="status" aria-label="Loading ${what}">
    ${Array.from({ length: rows }, () => html`<div class="bone"></div>`)}
  </div>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><p class="empty-title">${title}</p>
    ${children && html`<p class="soft">${children}</p>`}</div>`;
}

export function Fault({ error, retry }) {
  return html`<div class="fault" role="alert">
    <${Icon} state="alarm" />
    <div>
      <p>${error.message}</p>
      ${error.advice && html`<p class="soft">${error.advice}</p>`}
      ${retry && html`<button class="quiet" onClick=${retry}>Try again</button>`}
    </div>
  </div>`;
}

/**
 * What `useGet` or `usePages` found: `children(data)`, or the state that stands for it. Once data is
 * there it stays; a later fault stands above it.
 */
export function Loaded({ of, what, empty, rows, children }) {
  const data = of.items === undefined ? of.data : of.items;
  if (data === null || data === undefined) {
    if (of.error) return html`<${Fault} error=${of.error} retry=${of.reload} />`;
    return html`<${Loading} what=${what} rows=${rows} />`;
  }
  const nothing = empty && Array.isArray(data) && data.length === 0;
  return html`${of.error && html`<${Fault} error=${of.error} retry=${of.reload} />`}
  ${nothing ? empty : children(data)}`;
}

// -- layout ----------------------------------------------------------------------------------------

export function Page({ title, crumbs, actions, children }) {
  return html`<header class="page-head">
      <div>
        ${crumbs && html`<nav aria-label="Breadcrumb" class="crumbs">${crumbs}</nav>`}
        <h1 tabindex="-1">${title}</h1>
      </div>
      ${actions && html`<div class="actions">${actions}</div>`}
    </header>
    ${children}`;
}

export function Card({ title, note, actions, children, wide, id }) {
  return html`<section class="card ${wide ? "wide" : ""}" aria-label=${title} id=${id}>
    ${
      title &&
      html`<header class="card-head"><h2>${title}</h2>
        ${note && html`<span class="soft">${note}</span>`}
        ${actions && html`<div class="actions">${actions}</div>`}</header>`
    }
    ${children}
  </section>`;
}

/** A figure with its name. `href`: where it is taken apart. */
export function Stat({ name, value, note, tone, href }) {
  const inside = html`<span class="stat-name">${name}</span>
    <span class="stat-value ${tone ?? ""}">${value}</span>
    ${note && html`<span class="stat-note soft">${note}</span>`}`;
  return href
    ? html`<a class="stat" href=${href}>${inside}</a>`
    : html`<div class="stat">${inside}</div>`;
}

/** Names and values: [[name, value], …]; those with nothing to say are left out. */
export function Facts({ of }) {
  const said = of.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<dl class="facts">
    ${said.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/**
 * A table. `columns`: {name, of: (row) => cell, right, wide, phone}; `phone: false` hides it there.
 * `label`: what the table is, for screen readers.
 */
export function Table({ label, columns, rows, keyOf }) {
  return html`<div class="table" role="region" aria-label=${label} tabindex="0">
    <table>
      <thead>
        <tr>
          ${columns.map((one) => html`<th scope="col" class=${classes(one)}>${one.name}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr key=${keyOf(row)}>
            ${columns.map((one) => html`<td class=${classes(one)}>${one.of(row)}</td>`)}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function classes(column) {
  return [column.right && "right", column.wide && "fill", column.phone === false && "no-phone"]
    .filter(Boolean)
    .join(" ");
}

/** The way through a list of `usePages`. */
export function Pager({ of, what }) {
  if (!of.next && !of.previous) return null;
  return html`<nav class="pager" aria-label="Pages of ${what}">
    <button class="quiet" disabled=${!of.previous} onClick=${of.previous}>Previous</button>
    <span class="soft">Page ${of.page}</span>
    <button class="quiet" disabled=${!of.next} onClick=${of.next}>Next</button>
  </nav>`;
}

/** A choice among few: [[value, text], …]. */
export function Choice({ label, value, options, onChange }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(
      ([one, text]) => html`<button
        key=${one}
        aria-pressed=${one === value}
        onClick=${() => onChange(one)}
      >${text}</button>`,
    )}
  </div>`;
}

/** A choice among many. */
export function Select({ label, value, options, onChange }) {
  return html`<label class="field"><span>${label}</span>
    <select value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${options.map(([one, text]) => html`<option value=${one} selected=${one === value}>${text}</option>`)}
    </select></label>`;
}

/** A text that is told when nobody typed for a moment. */
export function Search({ label, value, onChange, placeholder }) {
  const [typed, put] = useState(value);
  const timer = useRef(0);
  useEffect(() => put(value), [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return html`<label class="field"><span>${label}</span>
    <input
      type="search"
      value=${typed}
      maxlength="64"
      placeholder=${placeholder}
      onInput=${(event) => {
        const text = event.target.value;
        put(text);
        clearTimeout(timer.current);
        timer.current = setTimeout(() => onChange(text.trim()), 250);
      }}
    /></label>`;
}

/** A modal dialog: the browser's own, which keeps the focus in it. Escape ends it. */
export function Dialog({ title, onClose, children }) {
  const at = useRef(null);
  useLayoutEffect(() => {
    const dialog = at.current;
    dialog.showModal();
    return () => dialog.close(); // which gives the focus back
  }, []);
  return html`<dialog
    ref=${at}
    aria-label=${title}
    onCancel=${(event) => {
      event.preventDefault();
      onClose();
    }}
    onClick=${(event) => event.target === at.current && onClose()}
  >
    <div class="dialog">
      <header class="card-head"><h2>${title}</h2>
        <button class="quiet icon-button" aria-label="Close" onClick=${onClose}>✕</button></header>
      ${children}
    </div>
  </dialog>`;
}

// -- charts ----------------------------------------------------------------------------------------

/** Parts of a whole, as a stacked bar with its list: [{name, value, tone|hue, href, note}]. */
export function Shares({ label, parts }) {
  const whole = parts.reduce((sum, one) => sum + one.value, 0) || 1;
  return html`<div class="shares">
    <div class="shares-bar" role="img" aria-label="${label}: ${parts
      .map((one) => `${one.name} ${percent(one.value / whole)}`)
      .join(", ")}">
      ${parts.map(
        (one) => html`<span
          class=${one.tone ?? `hue-${one.hue}`}
          style=${{ flexGrow: one.value }}
          title="${one.name}: ${number(one.value)} (${percent(one.value / whole, 1)})"
        ></span>`,
      )}
    </div>
    <ul>
      ${parts.map(
        (one) => html`<li>
          <i class=${one.tone ?? `hue-${one.hue}`}></i>
          ${one.href ? html`<a href=${one.href}>${one.name}</a>` : html`<span>${one.name}</span>`}
          ${one.note && html`<span class="soft">${one.note}</span>`}
          <b>${number(one.value)}</b><span class="soft share">${percent(one.value / whole, 1)}</span>
        </li>`,
      )}
    </ul>
  </div>`;
}

/** Shares of rows before and after, cell by cell: [{cell, before, after}]. */
export function Histogram({ bars, label, period = "since the change" }) {
  const most = Math.max(...bars.map((one) => Math.max(one.before, one.after)), 1e-9);
  return html`<figure class="histogram">
    <div class="columns" role="img" aria-label=${label}>
      ${bars.map(
        (one) => html`<div
          class="column"
          title="${one.cell}: ${percent(one.before, 1)} before, ${percent(one.after, 1)} after"
        >
          <span class="before" style=${{ height: `${(100 * one.before) / most}%` }}></span>
          <span class="after" style=${{ height: `${(100 * one.after) / most}%` }}></span>
        </div>`,
      )}
    </div>
    <div class="ends soft"><span>${bars[0]?.cell}</span><span>${bars.at(-1)?.cell}</span></div>
    <figcaption class="legend soft">
      <span><i class="before"></i>reference</span><span><i class="after"></i>${period}</span>
      <span>up to ${percent(most, 1)} of rows in a cell</span>
    </figcaption>
  </figure>`;
}

/** Columns over time: `spans`: [{start, value, bad}], evenly spaced; null where nothing came. */
export function TimeBars({ spans, label, since, until, unit }) {
  const most = Math.max(...spans.map((one) => one.value + one.bad), 1);
  return html`<figure class="histogram">
    <div class="columns thin" role="img" aria-label=${label}>
      ${spans.map(
        (one) => html`<div
          class="column stacked"
          title="${one.start.replace("T", " ").replace("Z", " UTC")}: ${number(one.value)} ${unit}${
            one.bad ? `, ${number(one.bad)} failed or refused` : ""
          }"
        >
          <span class="bad" style=${{ height: `${(100 * one.bad) / most}%` }}></span>
          <span class="after" style=${{ height: `${(100 * one.value) / most}%` }}></span>
        </div>`,
      )}
    </div>
    <div class="ends soft"><span>${ago(since)}</span><span>up to ${short(most)} ${unit}</span>
      <span>${ago(until)}</span></div>
  </figure>`;
}
