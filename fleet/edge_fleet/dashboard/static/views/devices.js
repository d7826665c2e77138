// Devices by name, with what narrows them down; a page at a time.
import { useGet, usePages } from "../api.js";
import { html } from "../html.js";
import {
  Ago, Badge, Choice, Empty, Label, Loaded, number, Page, Pager, plural, Search, Select, State, Table,
} from "../parts.js";
import { link, refine } from "../router.js";
import Device from "./device.js";

const STATES = [["", "All"], ["online", "Online"], ["silent", "Silent"], ["offline", "Offline"]];
const LIMIT = 50;
const LABELS_SHOWN = 3;

const COLUMNS = [
  { name: "Device", of: (one) => html`<a href=${link(["devices", one.device])}>${one.device}</a>` },
  { name: "State", of: (one) => html`<${State} state=${one.state} />` },
  { name: "Runs", wide: true, of: (one) => html`<${Runs} of=${one} />` },
  { name: "Labels", phone: false, of: (one) => html`<${Labels} of=${one.labels} />` },
  { name: "Hardware", phone: false, of: (one) => html`<span class="cut">${one.machine}</span>` },
  { name: "Rows", right: true, phone: false, of: (one) => number(one.rows) },
  { name: "Last seen", right: true, of: (one) => html`<${Ago} at=${one.last_seen} />` },
];

function Runs({ of }) {
  return html`<span class="runs">
    ${of.models.map((one) => html`<span key=${one.model}>${one.model} <b>${one.version || "–"}</b>
      ${one.phase && !["idle", "committed"].includes(one.phase) && html` <${Badge} tone="info">${one.phase}<//>`}
      ${one.open_alarms > 0 && html` <${Badge} tone="bad">${plural(one.open_alarms, "alarm")}<//>`}</span>`)}
  </span>`;
}

function Labels({ of }) {
  const all = Object.entries(of);
  return html`<span class="labels">
    ${all.slice(0, LABELS_SHOWN).map(([name, value]) => html`<${Label} name=${name} value=${value} />`)}
    ${all.length > LABELS_SHOWN && html`<span class="soft">+${all.length - LABELS_SHOWN}</span>`}
  </span>`;
}

export default function Devices({ route }) {
  const id = route.parts[1];
  return id ? html`<${Device} key=${id} id=${id} />` : html`<${List} route=${route} />`;
}

function List({ route }) {
  const { state = "", search = "", label = "", model = "", version = "", machine = "" } = route.query;
  const overview = useGet("overview");
  const asked = { state, search, label: label || undefined, model, version, machine, limit: LIMIT };
  const found = usePages("devices", asked, 15_000);
  const versions = overview.data?.versions ?? [];
  const sites = (overview.data?.sites ?? []).map((one) => one.site).filter(Boolean).sort();
  const site = label.startsWith("site:") ? label.slice(5) : "";
  const filtered = state || search || label || model || version || machine;
  const choose = (chosen) => {
    const [of = "", which = ""] = chosen.split("\n");
    refine(route, { model: of, version: which });
  };
  const clear = () => refine(route, { state: "", search: "", label: "", model: "", version: "", machine: "" });
  return html`<${Page} title="Devices">
    <form class="filters" role="search" aria-label="Devices" onSubmit=${(event) => event.preventDefault()}>
      <${Search} label="Name holds" value=${search} onChange=${(text) => refine(route, { search: text })} />
      <${Select} label="Site" value=${site}
        options=${[["", "All sites"], ...known(sites, site).map((one) => [one, one])]}
        onChange=${(one) => refine(route, { label: one ? `site:${one}` : "" })} />
      <${Select} label="Version" value=${model || version ? `${model}\n${version}` : ""}
        options=${[["", "All versions"], ...versions.map((one) => [`${one.model}\n${one.version}`, `${one.model} ${one.version}`])]}
        onChange=${choose} />
      <${Search} label="Hardware holds" value=${machine} onChange=${(text) => refine(route, { machine: text })} />
      <${Choice} label="State" value=${state} options=${STATES} onChange=${(one) => refine(route, { state: one })} />
      ${filtered && html`<button type="button" class="quiet" onClick=${clear}>Clear</button>`}
    </form>
    <${Loaded} of=${found} what="devices" rows=${12} empty=${html`<${Empty}
      title=${filtered ? "No device fits these filters" : "No device was heard of yet"}
    >${filtered ? "Clear one of them to see more." : "Start an agent with the fleet's broker."}<//>`}>
      ${(items) => html`<${Table} label="Devices" columns=${COLUMNS} rows=${items} keyOf=${(one) => one.device} />
        <${Pager} of=${found} what="devices" />`}
    <//>
  <//>`;
}

function known(options, chosen) {
  return !chosen || options.includes(chosen) ? options : [chosen, ...options];
}
