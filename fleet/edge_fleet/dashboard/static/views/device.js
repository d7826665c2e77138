// One device: what it runs and should run, how it is, what it counted, what happened to it.
import { useGet, usePages } from "../api.js";
import { html, useCallback, useState } from "../html.js";
import { useLive } from "../live.js";
import {
  Ago, Badge, bytes, Card, Choice, duration, Empty, Facts, Fault, Label, Loaded, number, Page, Pager,
  plural, State, Table, Text, TimeBars,
} from "../parts.js";
import { link } from "../router.js";
import { AlarmList } from "./alarms.js";
import { COLUMNS, keyOf, useEvents } from "./events.js";

const EVERY_MS = 15_000;
const CLOCK_OFF_S = 30;
const PERIODS = [["6", "6 h"], ["24", "24 h"], ["168", "7 d"]];

export default function Device({ id }) {
  const at = `devices/${encodeURIComponent(id)}`;
  const found = useGet(`${at}/detail`, {}, EVERY_MS);
  const heard = useCallback((told) => told.data.device === id && found.reload(), [id, found.reload]);
  useLive(heard);
  const crumbs = html`<a href=${link(["devices"])}>Devices</a>`;
  if (found.data === null) {
    return html`<${Page} title=${id} crumbs=${crumbs}>
      <${Loaded} of=${found} what="device">${() => null}<//>
    <//>`;
  }
  const { device, reported } = found.data;
  return html`<${Page} title=${html`${id} <${State} state=${device.state} />`} crumbs=${crumbs}>
    ${found.error && html`<${Fault} error=${found.error} retry=${found.reload} />`}
    ${reported?.twin && html`<p class="banner">Another agent lives under this name: ${reported.twin}</p>`}
    <div class="grid">
      <${Models} of=${found.data} />
      <${State_} of=${found.data} />
      <div class="stack"><${Counts} at=${at} /><${Alarms} id=${id} /></div>
      <${Events} id=${id} />
    </div>
  <//>`;
}

/** What a model is to follow in words: stable, candidate or a version. */
function wanted(detail, model) {
  return detail.desired?.models?.[model] ?? "stable";
}

function Models({ of }) {
  const reports = of.reported?.models ?? {};
  return html`<${Card} title="Models" wide note=${following(of)}>
    ${of.device.models.length === 0 && html`<${Empty} title="It runs no model yet" />`}
    ${of.device.models.map((one) => {
      const report = reports[one.model] ?? {};
      const failed = report.failure;
      return html`<article class="model" key=${one.model}>
        <h3>${one.model} <b>${one.version || "none"}</b>
          ${one.phase && html` <${Badge} tone=${phaseTone(one.phase)}>${one.phase}<//>`}
          ${one.open_alarms > 0 && html` <${Badge} tone="bad">${plural(one.open_alarms, "alarm")}<//>`}</h3>
        <${Facts} of=${[
          ["Should run", wanted(of, one.model)],
          ["Candidate", report.candidate],
          ["Fetched", report.total_bytes ? `${bytes(report.done_bytes ?? 0)} of ${bytes(report.total_bytes)}` : ""],
          ["Before it", report.previous],
          ["Waits for", report.waits],
          ["Beside it", report.beside],
          ["From the factory", report.factory],
          ["Reason", report.reason && html`<${Text}>${report.reason}<//>`],
          ["Refuses", (report.quarantined ?? []).join(", ")],
          ["Last failure", failed && html`<${Text}>${`${failed.version}: ${failed.reason || "no reason given"}`}<//>`],
          ["Rows counted", number(one.rows)],
          ["Windows", number(one.windows)],
        ]} />
      </article>`;
    })}
  <//>`;
}

function following(of) {
  return of.device.said || (of.device.follows ?? "").replaceAll("-", " ");
}

function phaseTone(phase) {
  if (phase === "committed" || phase === "idle") return "good";
  return phase === "rolling-back" ? "bad" : "info";
}

function State_({ of }) {
  const { device, reported } = of;
  const strain = reported?.strain ?? {};
  const hardware = reported?.hardware;
  const room = reported?.room ?? {};
  return html`<${Card} title="Machine">
    <${Facts} of=${[
      ["Last seen", html`<${Ago} at=${device.last_seen} />`],
      ["Last report", html`<${Ago} at=${of.received} />`],
      ["Clock", html`<${Clock} of=${of} />`],
      ["Temperature", strain.temperature_c != null && `${strain.temperature_c.toFixed(1)} °C`],
      ["Strain", (strain.signs ?? []).join("; ")],
      ["Disk free", room.free_bytes != null && `${bytes(room.free_bytes)}${room.total_bytes ? ` of ${bytes(room.total_bytes)}` : ""}`],
      ["Records waiting", room.spool_bytes ? `${bytes(room.spool_bytes)} of at most ${bytes(room.spool_max_bytes)}` : ""],
      ["Channel", reported?.channel],
      ["Metadata", device.freshness],
      ["Agent", device.agent],
      ["Boot", device.boot ? number(device.boot) : ""],
      ["Hardware", hardware && `${hardware.machine}, ${hardware.cpus} cores, ${bytes(hardware.ram_bytes)}`],
      ["System", hardware?.system],
      ["Python", hardware?.python],
      ["ONNX Runtime", hardware?.onnxruntime],
      ["Windows dropped", device.dropped ? number(device.dropped) : ""],
    ].filter(([, value]) => value !== false)} />
    <h3>Labels</h3>
    <p class="labels">${Object.entries(device.labels).map(
      ([name, value]) => html`<a class="plain" href=${link(["devices"], { label: `${name}:${value}` })}><${Label} name=${name} value=${value} /></a>`,
    )}${Object.keys(device.labels).length === 0 && html`<span class="soft">none</span>`}</p>
  <//>`;
}

/** What is known of a device's clock: how far it is off, and whether a time service keeps it. */
function Clock({ of }) {
  const off = of.device.inventory?.clock_offset_s ?? null;
  const kept = of.reported?.synchronised;
  if (off !== null && Math.abs(off) >= CLOCK_OFF_S) {
    return html`<${Badge} tone="warn">${duration(Math.abs(off))} ${off > 0 ? "ahead" : "behind"}<//>`;
  }
  if (kept === undefined || kept === null) return "–";
  return kept ? "kept by a time service" : html`<${Badge} tone="warn">no time service<//>`;
}

function Counts({ at }) {
  const [hours, choose] = useState("24");
  const found = useGet(`${at}/counts`, { hours }, 60_000);
  return html`<${Card} title="Predictions" note="rows by the time of their window"
    actions=${html`<${Choice} label="Period" value=${hours} options=${PERIODS} onChange=${choose} />`}>
    <${Loaded} of=${found} what="counts" rows=${3}>
      ${(data) => {
        const models = [...new Set(data.spans.map((one) => one.model))];
        if (models.length === 0) return html`<${Empty} title="No window came in this time" />`;
        return models.map((model) => html`<div class="model" key=${model}>
          ${models.length > 1 && html`<h3>${model}</h3>`}
          <${TimeBars} spans=${spread(data, model)} since=${data.since} until=${data.until} unit="rows"
            label="Rows of ${model} over ${hours} hours" /></div>`);
      }}
    <//>
  <//>`;
}

/** Every span of the time, those without a window as zeros. */
function spread(data, model) {
  const since = Date.parse(data.since);
  const count = Math.round((Date.parse(data.until) - since) / 1000 / data.span_s);
  const spans = Array.from({ length: count + 1 }, (_, n) => ({
    start: new Date(since + n * data.span_s * 1000).toISOString().slice(0, 19) + "Z", value: 0, bad: 0,
  }));
  for (const one of data.spans.filter((each) => each.model === model)) {
    const at = Math.round((Date.parse(one.start) - since) / 1000 / data.span_s);
    if (spans[at]) Object.assign(spans[at], { value: one.rows, bad: one.failed + one.refused });
  }
  return spans;
}

function Alarms({ id }) {
  const found = usePages("alarms", { device: id, state: "all", limit: 5 }, 30_000);
  return html`<${Card} title="Alarms" note="newest first">
    <${Loaded} of=${found} what="alarms" rows=${2} empty=${html`<${Empty} title="No alarm on this device" />`}>
      ${(items) => html`<${AlarmList} items=${items} /><${Pager} of=${found} what="alarms" />`}
    <//>
  <//>`;
}

function Events({ id }) {
  const found = useEvents(id, "", 20);
  const columns = COLUMNS.filter((one) => one.name !== "Device");
  return html`<${Card} title="Events" wide note="newest first, as they come">
    <${Loaded} of=${found} what="events" rows=${4} empty=${html`<${Empty} title="Nothing happened here yet" />`}>
      ${(items) => html`<${Table} label="Events of ${id}" columns=${columns} rows=${items} keyOf=${keyOf} />
        <${Pager} of=${found} what="events" />`}
    <//>
  <//>`;
}
