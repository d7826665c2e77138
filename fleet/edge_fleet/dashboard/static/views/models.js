// Models: their versions and where those are; one version: what it says of itself, how it has been.
import { nowMs, useGet } from "../api.js";
import { Band } from "../components/band.js";
import { Siblings } from "../components/versions.js";
import { html } from "../html.js";
import {
  Ago, Badge, bytes, Card, Choice, Empty, Facts, figure, Loaded, number, Page, percent, short, Stat,
  Table, TimeBars,
} from "../parts.js";
import { link, refine } from "../router.js";

const PERIODS = [["24", "24 h"], ["168", "7 days"], ["720", "30 days"]];
const QUALITY = {
  missing: "values missing", infinite: "infinite values", "out-of-range": "values out of range",
  unseen: "categories never seen", "off-lattice": "values between the known ones",
  stuck: "stuck at one value", flat: "no spread", sentinel: "a value that stands for none",
  unit: "another unit of measurement", "stale-clock": "a clock that stood still", refused: "rows refused",
};

export default function Models({ route }) {
  if (route.parts[1]) return html`<${Version} key=${route.parts[1]} bundle=${route.parts[1]} route=${route} />`;
  return html`<${List} />`;
}

function List() {
  const found = useGet("models", {}, 30_000);
  return html`<${Page} title="Models">
    <${Loaded} of=${found} what="models" empty=${html`<${Empty} title="No device has reported a model yet">
      <code>edge-pack publish</code> puts one on the broker; devices that follow the channel report it here.<//>`}>
      ${(models) => models.map((model) => html`<${Card} key=${model.model} title=${model.model}
        note=${html`on ${number(model.devices)} devices${model.open_alarms > 0 && html` · <a href=${link(["alarms"], { model: model.model })}>${number(model.open_alarms)} open alarms</a>`}`}>
        <${Table} label="Versions of ${model.model}" keyOf=${(one) => one.version} rows=${model.versions} columns=${[
          { name: "Version", of: (one) => one.bundle ? html`<a href=${link(["models", one.bundle])}>${one.version}</a>` : one.version },
          { name: "Running", right: true, of: (one) => number(one.running) },
          { name: "Being fetched", right: true, phone: false, of: (one) => number(one.fetching) },
          { name: "To go back to", right: true, phone: false, of: (one) => number(one.former) },
          { name: "Failed on", right: true, of: (one) => one.failed > 0 ? html`<${Badge} tone="bad">${number(one.failed)}<//>` : "0" },
          { name: "Rows counted", right: true, of: (one) => short(one.rows) },
          { name: "Last counted", phone: false, of: (one) => html`<${Ago} at=${one.last_counted} />` },
          { name: "", of: (one) => one.pending > 0 ? html`<${Badge} tone="warn" title="Its profile is not known: publish its bundle">${number(one.pending)} windows wait<//>`
            : one.bundle && html`<a href=${link(["drift", one.bundle])}>Drift</a> · <a href=${link(["quality", one.bundle])}>Quality</a>` },
        ]} />
        ${model.left_off > 0 && html`<p class="soft">${number(model.left_off)} further versions are not shown.</p>`}
      <//>`)}
    <//>
  <//>`;
}

function Version({ bundle, route }) {
  const hours = route.query.hours ?? "24";
  const found = useGet(`bundles/${bundle}`, { hours }, 60_000);
  const data = found.data;
  const crumbs = html`<a href=${link(["models"])}>Models</a>`;
  return html`<${Page} title=${data ? `${data.model} ${data.version}` : "Model"} crumbs=${crumbs} actions=${html`<${Siblings} here="models" bundle=${bundle} />`}>
    <form class="filters" aria-label="What is shown" onSubmit=${(event) => event.preventDefault()}>
      <${Choice} label="Period" value=${hours} options=${PERIODS} onChange=${(one) => refine(route, { hours: one })} /></form>
    <${Loaded} of=${found} what="version" rows=${10}>${(one) => html`<${Shown} of=${one} />`}<//>
  <//>`;
}

function Shown({ of: one }) {
  const asked = one.rows + one.refused + one.failed;
  const watched = one.features.filter((each) => each.finds);
  return html`<div class="stats">
      <${Stat} name="Rows answered" value=${short(one.rows)} note=${`${short(one.windows)} windows`} />
      <${Stat} name="Refused" value=${short(one.refused)} note=${`${percent(asked ? one.refused / asked : 0, 2)} of requests`} tone=${one.refused ? "warn" : ""} />
      <${Stat} name="Failed" value=${short(one.failed)} note=${`${percent(asked ? one.failed / asked : 0, 2)} of requests`} tone=${one.failed ? "bad" : ""} />
      <${Stat} name="Latency, median" value=${ms(one.latency.p50_ms)} note=${`90 %: ${ms(one.latency.p90_ms)}`} />
      <${Stat} name="Latency, 99 %" value=${ms(one.latency.p99_ms)} note="upper bounds, steps of 1.42" />
    </div>
    <div class="grid">
      <${Card} title="Rows over time">${one.rows + one.failed + one.refused ? html`<${TimeBars} label="Rows answered, and refused or failed, over time"
        spans=${one.steps.map((step) => ({ start: step.start, value: step.rows, bad: step.refused + step.failed }))} since=${one.since} until=${new Date(nowMs()).toISOString()} unit="rows" />`
        : html`<${Empty} title="No row came in this time" />`}<//>
      <${Card} title="Latency over time" note="milliseconds a call">${latency(one)}<//>
      <${Card} title="Why rows were refused or failed">${Object.keys(one.errors).length ? html`<${Table} label="Errors by code" keyOf=${([code]) => code} rows=${Object.entries(one.errors).toSorted((a, b) => b[1] - a[1])}
        columns=${[{ name: "Code", of: ([code]) => html`<code>${code}</code>` }, { name: "Rows", right: true, of: ([, rows]) => number(rows) }]} />`
        : html`<${Empty} title="None was" />`}<//>
      <${Card} title="What devices found wrong with their inputs">${one.findings.length ? html`<${Table} label="Findings" keyOf=${(each) => `${each.code}/${each.feature}`} rows=${one.findings} columns=${[
        { name: "Finding", of: (each) => html`<b>${each.feature || "the device"}</b>: ${QUALITY[each.code] ?? each.code}` },
        { name: "Windows", right: true, of: (each) => number(each.windows) },
        { name: "Over time", of: (each) => html`<${Spark} of=${each.steps} label="${each.windows} windows over the period" />` },
      ]} />` : html`<${Empty} title="Nothing" />`}<//>
      ${one.shadows.length > 0 && html`<${Card} wide title="Beside one another" note="candidates in the shadow, on the same requests"><${Table} label="Shadow comparisons" keyOf=${(each) => `${each.live_version}/${each.version}`} rows=${one.shadows} columns=${[
        { name: "Candidate", of: (each) => each.version }, { name: "Beside", of: (each) => each.live_version },
        { name: "Devices", right: true, of: (each) => number(each.devices) }, { name: "Rows", right: true, of: (each) => short(each.rows) },
        { name: "Same answer", right: true, of: (each) => each.agreement ? html`${percent(each.agreement.share, 1)} <span class="soft">${percent(each.agreement.low, 1)} to ${percent(each.agreement.high, 1)}</span>` : "–" },
        { name: "Failed", right: true, of: (each) => number(each.failed) },
        { name: "Latency 50 / 99 %", right: true, of: (each) => `${ms(each.latency_p50_ms)} / ${ms(each.latency_p99_ms)}` },
        { name: "Live 50 / 99 %", right: true, of: (each) => `${ms(each.live_p50_ms)} / ${ms(each.live_p99_ms)}` },
      ]} /><//>`}
      <${Card} wide title="Inputs" note=${watched.length ? "and what drift of each the detector finds" : ""}>
        <${Table} label="Inputs" keyOf=${(each) => each.name} rows=${one.features} columns=${[
          { name: "Name", of: (each) => each.name }, { name: "Type", phone: false, of: (each) => each.type },
          { name: "In the reference", of: (each) => each.categories ? `${number(each.categories)} categories` : each.minimum === null ? "" : `${figure(each.minimum)} to ${figure(each.maximum)} ${each.unit}` },
          { name: "The detector", wide: true, of: (each) => each.finds || html`<span class="soft">not reckoned</span>` },
        ]} />
        ${one.features_left_off > 0 && html`<p class="soft">${number(one.features_left_off)} further inputs are not shown.</p>`}
        ${one.not_watched.length > 0 && html`<p class="soft">Not watched, since no shift could be found at the declared rate: ${one.not_watched.join(", ")}</p>`}
      <//>
      <${Card} title="What it says of itself"><${Facts} of=${[
        ["Task", one.task], ["Labels", one.labels.join(", ")], ["Size", bytes(one.size_bytes)], ["Compression", one.compression],
        ["Reference", `${number(one.reference_rows)} rows${one.time_ordered ? ", in order of time" : ""}`],
        ["Licence", one.licence], ["Intended use", one.intended_use], ["Bundle", html`<code>${one.bundle.slice(0, 16)}…</code>`],
      ]} /><//>
      <${Card} title="Figures of its build">${one.metrics.length ? html`<${Table} label="Figures of the build" keyOf=${(each) => each.name} rows=${one.metrics} columns=${[
        { name: "Figure", of: (each) => each.name }, { name: "Value", right: true, of: (each) => figure(each.value) },
        { name: "95 %", right: true, of: (each) => each.low === null ? "–" : `${figure(each.low)} to ${figure(each.high)}` },
      ]} />` : html`<${Empty} title="It was built without labelled rows" />`}<//>
    </div>`;
}

function latency(one) {
  const of = (name, tone, band) => ({
    name: { p50_ms: "median", p99_ms: "99 %" }[name], tone, band,
    points: one.steps.map((step) => ({ start: step.start, value: step[name], low: null, high: null, note: "" })),
  });
  if (one.latency.p50_ms === null) return html`<${Empty} title="No call was timed in this time" />`;
  return html`<${Band} series=${[of("p50_ms", "first", true), of("p99_ms", "second", true)]} label="Latency over time: median and 99 %, milliseconds" zero />`;
}

function ms(value) {
  if (value === null) return "–";
  return value < 1 ? `${figure(value * 1000)} µs` : `${figure(value)} ms`;
}

function Spark({ of, label }) {
  const most = Math.max(...of, 1);
  return html`<div class="spark" role="img" aria-label=${label}>${of.map((value) => html`<span style=${{ height: `${(100 * value) / most}%` }}></span>`)}</div>`;
}
