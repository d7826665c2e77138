// Drift of one version: when, in which features, by how much, and on which devices.
import { useGet } from "../api.js";
import { HeatMap, moment } from "../components/heatmap.js";
import { PERIODS, Siblings, useVersions, VersionChoice } from "../components/versions.js";
import { html } from "../html.js";
import {
  Badge, Card, Choice, Empty, Facts, figure, Histogram, Loaded, number, Page, percent, Table,
} from "../parts.js";
import { link, refine } from "../router.js";
import { AlarmList } from "./alarms.js";

const WEEK = "168";

/** The shortest period that holds all that came in the last seven days: of a young fleet, hours. */
function fitting(map) {
  const first = map.rows.findIndex((many) => many > 0);
  const hours = first < 0 ? Infinity : ((map.rows.length - first) * map.step_ms) / 3_600_000;
  return PERIODS.map(([each]) => each).find((each) => Number(each) >= hours) ?? WEEK;
}

/** {map, hours}: what was asked for, or what fits. */
function useMap(bundle, said) {
  const path = bundle ? `bundles/${bundle}/drift` : null;
  const wide = useGet(path, { hours: said ?? WEEK }, 60_000);
  const hours = said ?? (wide.data ? fitting(wide.data) : WEEK);
  const closer = useGet(hours === (said ?? WEEK) ? null : path, { hours }, 60_000);
  return { map: hours === (said ?? WEEK) ? wide : closer, hours };
}

export default function Drift({ route }) {
  const { found, versions, chosen } = useVersions(route.parts[1]);
  const { map, hours } = useMap(chosen?.bundle, route.query.hours);
  if (!chosen) {
    return html`<${Page} title="Drift"><${Loaded} of=${found} what="versions">${() => html`<${Empty}
      title="No version has been counted yet">Devices send a window of counts every few minutes; the first one starts this page.<//>`}<//><//>`;
  }
  return html`<${Page} title=${html`Drift of ${chosen.name}`} actions=${html`<${Siblings} here="drift" bundle=${chosen.bundle} />`}>
    <form class="filters" aria-label="What is shown" onSubmit=${(event) => event.preventDefault()}>
      <${VersionChoice} page="drift" versions=${versions} chosen=${chosen} query=${{ hours: route.query.hours }} />
      <${Choice} label="Period" value=${hours} options=${PERIODS} onChange=${(hours) => refine(route, { hours, from: "", until: "" })} />
    </form>
    <${OfVersion} key=${chosen.bundle} version=${chosen} map=${map} route=${route} />
  <//>`;
}

function OfVersion({ version, map, route }) {
  const alarms = useGet("alarms", { model: version.model ?? "", limit: 20 }, 30_000);
  return html`<${Loaded} of=${map} what="drift map" rows=${12}>
    ${(data) => html`<${Map} map=${data} route=${route} alarms=${alarms} />`}
  <//>`;
}

function Map({ map, route, alarms }) {
  const { feature, source, from } = route.query;
  const row = map.features.findIndex((one) => one.feature === feature && one.source === (source ?? "feature"));
  const step = from ? Math.round((Number(from) - map.since_ms) / map.step_ms) : null;
  const came = map.rows.reduce((sum, one) => sum + one, 0);
  function pick(at, start) {
    const one = map.features[at];
    const begin = map.since_ms + (start ?? 0) * map.step_ms;
    refine(route, {
      feature: one.feature, source: one.source,
      from: start === null ? "" : String(begin), until: start === null ? "" : String(begin + map.step_ms),
    });
  }
  const moved = map.features.filter((one) => one.most > 0);
  return html`<div class="grid">
    <${Card} wide title="Feature by time" note=${`${number(map.features.length)} of ${number(map.monitors)} monitors, those that moved most first; ${map.step_ms / 3_600_000} h a cell`}>
      ${came === 0 ? html`<${Empty} title="No row came in this time">A longer period may hold some; hours are kept since this server was brought up to date.<//>`
        : html`<${HeatMap} map=${map} onPick=${pick} picked=${row < 0 ? null : { row, step }} label="Distance of each feature from its reference, by time" />
      <details><summary>As a table</summary><${Table} label="Features by their largest shift" keyOf=${(one) => `${one.source}/${one.feature}`}
        rows=${moved.length ? moved : map.features.slice(0, 10)} columns=${[
          { name: "Feature", of: (one) => one.feature },
          { name: "Largest shift beyond chance", right: true, of: (one) => figure(one.most) },
          { name: "When (UTC)", of: (one) => (one.most > 0 ? moment(map.starts[largest(one)]) : "–") },
          { name: "Hours shifted", right: true, of: (one) => number(one.shift.filter((v) => v > 0).length * map.step_ms / 3_600_000) },
          { name: "Open alarms", right: true, of: (one) => number(one.alarms) },
        ]} /></details>`}
      <p class="promise soft">${map.promise} Colours are no alarms: they show the Jensen-Shannon distance of all devices'
        counts together, less what chance makes of so many rows.</p>
    <//>
    ${row < 0 ? html`<${Card} title="Before and after"><${Empty} title="Pick a feature">Its name for the whole time, a cell for an hour of it.<//><//>`
      : html`<${BeforeAfter} map=${map} one=${map.features[row]} route=${route} />`}
    <${Devices} bundle=${map.bundle} one=${row < 0 ? null : map.features[row]} />
    <${Card} wide title="Open alarms of the model">
      <${Loaded} of=${alarms} what="alarms" rows=${3}>${(data) => data.items.length ? html`<${AlarmList} items=${data.items} />`
        : html`<${Empty} title="No open alarm" />`}<//>
    <//>
  </div>`;
}

function largest(one) {
  return one.shift.reduce((best, value, at) => (value > (one.shift[best] ?? -1) ? at : best), 0);
}

function BeforeAfter({ map, one, route }) {
  const since = route.query.from || String(map.since_ms);
  const until = route.query.until || String(map.since_ms + map.starts.length * map.step_ms);
  const found = useGet(`bundles/${map.bundle}/histogram`, { feature: one.feature, source: one.source, since_ms: since, until_ms: until });
  return html`<${Card} title=${html`${one.feature}: before and after`} note=${found.data ? `${moment(found.data.since)} to ${moment(found.data.until)} UTC` : ""}>
    <${Loaded} of=${found} what="histogram">${(data) => html`
      ${data.rows === 0 ? html`<${Empty} title="Fewer than ${data.k} rows came in this time">Nothing is shown of so few.<//>` : html`
        <p class="lead">${data.what}</p>
        <${Histogram} bars=${data.bars} label="Shares of rows by value, reference and period: ${data.what}" period="in this time" />
        ${data.left_off > 0 && html`<p class="soft">${number(data.left_off)} further cells are not shown.</p>`}
        <${Facts} of=${[
          ["Rows", number(data.rows)],
          ["Distance (Jensen-Shannon)", `${figure(data.distance)}, by chance ${figure(data.chance)}`],
          ["PSI", figure(data.psi)],
          ["Wasserstein", data.wasserstein === null ? "" : figure(data.wasserstein)],
          ["Median", data.median_before === null ? "" : `${figure(data.median_before)} → ${data.median_after === null ? "out of range" : figure(data.median_after)}`],
        ]} />
        ${data.merged && html`<p class="soft">Cells of fewer than ${data.k} rows are shown merged with those around them.</p>`}
        <details><summary>As a table</summary><${Table} label="Shares by value" keyOf=${(bar) => bar.cell} rows=${data.bars} columns=${[
          { name: "Value", of: (bar) => bar.cell },
          { name: "Reference", right: true, of: (bar) => percent(bar.before, 2) },
          { name: "Period", right: true, of: (bar) => percent(bar.after, 2) },
        ]} /></details>`}`}<//>
  <//>`;
}

function Devices({ bundle, one }) {
  const query = one ? { feature: one.feature, source: one.source, limit: 12 } : { limit: 12 };
  const found = useGet(`bundles/${bundle}/contributors`, query, 60_000);
  return html`<${Card} title="Which devices" note=${one ? html`by their evidence on ${one.feature}` : "by the strongest evidence on any feature"}>
    <${Loaded} of=${found} what="devices">${(data) => data.items.length === 0 ? html`<${Empty} title="No device has counted this version" />` : html`
      <p class="soft">${number(data.above)} of ${number(data.devices)} devices are above the alarm's threshold of 10^${figure(data.threshold)} to 1.</p>
      <${Table} label="Devices by evidence" keyOf=${(each) => each.device} rows=${data.items} columns=${[
        { name: "Device", of: (each) => html`<a href=${link(["devices", each.device])}>${each.device}</a>` },
        ...(one ? [] : [{ name: "Feature", of: (each) => each.feature }]),
        { name: "Evidence", right: true, of: (each) => `10^${figure(each.evidence)}` },
        { name: "Share of all", right: true, of: (each) => percent(each.share) },
        { name: "Alarm", of: (each) => each.alarm !== null && html`<a href=${link(["alarms", String(each.alarm)])}><${Badge} tone="bad">alarm ${each.alarm}<//></a>` },
      ]} />`}<//>
  <//>`;
}
