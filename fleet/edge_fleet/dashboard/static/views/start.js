// A new rollout: the order as a form, and beside it what the server says that it would do now.
//
// Guards: nothing is checked here; what the server says of one field stands beside that field.
import { newKey, post, useGet } from "../api.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { Card, Dialog, Empty, Fault, figure, Loading, number, Page, Table } from "../parts.js";
import { may } from "../roles.js";
import { link } from "../router.js";
import { GATES, POLICIES } from "./rollout_words.js";

const EMPTY = {
  version: "", waves: "1,5%,25%,100%", select: "", bake: "2h", policy: "halt", per_site: "", approve: false, unchecked: false,
  trial: "", share: "10%", on: "", slot: "", spread: "", limits: {},
};
const TRIALS = { "": "nothing", shadow: "the candidate beside the live version, unheard (shadow)", ab: "the candidate answers a share of the requests (A/B)" };
const OF_TRIAL = ["agreement", "shadow_failures", "shadow_scores", "shadow_latency"];
const RATIOS = ["latency", "shadow_latency"];

/** The request's body: what is empty is left out, and the server has its own. */
function bodyOf({ trial, share, on, limits, per_site, ...rest }) {
  const gate = Object.entries(limits).filter(([, limit]) => limit.trim()).map(([name, limit]) => `${name}=${limit.trim()}`);
  const said = { ...rest, per_site: Number(per_site) || "", gate: gate.length ? gate : "" };
  if (trial) Object.assign(said, { [trial]: share.trim() || "0%", on });
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value !== "" && value !== false));
}

/** A field with its name, what it takes, and what the server says is wrong with it. */
function Field({ label, name, hint, error, children }) {
  const wrong = error?.field === name;
  const ids = [hint && `${name}-hint`, wrong && `${name}-wrong`].filter(Boolean).join(" ");
  const input = { id: `in-${name}`, name, "aria-invalid": wrong ? "true" : undefined, "aria-describedby": ids || undefined };
  return html`<div class="field"><label for="in-${name}">${label}</label>${children(input)}
    ${hint && html`<span class="soft hint" id="${name}-hint">${hint}</span>`}
    ${wrong && html`<span class="wrong" role="alert" id="${name}-wrong">${error.message}${error.advice && ` ${error.advice}`}</span>`}</div>`;
}

export function Start({ me }) {
  const models = useGet("models");
  const [order, put] = useState(EMPTY);
  const [error, say] = useState(null);
  const [sending, send] = useState(false);
  const [asking, ask] = useState(false);
  const wish = useRef({ key: newKey(), body: "" });
  const set = (name) => (event) => {
    say(null);
    put({ ...order, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  };
  const limit = (name) => (event) => put({ ...order, limits: { ...order.limits, [name]: event.target.value } });
  const body = bodyOf(order);
  const preview = usePreview(body);
  const wrong = error ?? preview.error;
  const known = (models.data ?? []).flatMap((model) => model.versions.map((one) => `${model.model}@${one.version}`));
  async function begin() {
    const said = JSON.stringify(body);
    if (wish.current.body !== said) wish.current = { key: newKey(), body: said };
    send(true);
    say(null);
    try {
      const made = await post("rollouts", body, wish.current.key);
      location.hash = link(["rollouts", String(made.id)]).slice(1);
    } catch (fault) {
      say(fault);
      send(false);
      ask(false);
    }
  }
  const text = (name, label, more = {}, of = name) => html`<${Field} label=${label} name=${name} hint=${more.hint} error=${wrong}>
    ${(input) => html`<input ...${input} autocomplete="off" required=${more.required} placeholder=${more.placeholder} list=${more.list}
      type=${more.type ?? "text"} min=${more.min} value=${order[of]} onInput=${set(of)} />`}<//>`;
  const choice = (name, label, options) => html`<${Field} label=${label} name=${name} error=${wrong}>
    ${(input) => html`<select ...${input} value=${order[name]} onChange=${set(name)}>
      ${Object.entries(options).map(([one, words]) => html`<option value=${one} selected=${one === order[name]}>${words}</option>`)}</select>`}<//>`;
  const crumbs = html`<a href=${link(["rollouts"])}>Rollouts</a>`;
  if (me && !may(me, "operator")) return html`<${Page} title="Start a rollout" crumbs=${crumbs}><${Empty} title="An operator's token may start one">This one is a ${me.role}'s.<//><//>`;
  return html`<${Page} title="Start a rollout" crumbs=${crumbs}>
    <div class="grid"><${Card} title="What, to whom, in which steps">
      <form class="order" onSubmit=${(event) => { event.preventDefault(); ask(true); }}>
        ${text("version", "Version, as NAME@VERSION", { required: true, placeholder: "pump@2.0", list: "versions" })}
        <datalist id="versions">${known.map((one) => html`<option value=${one}></option>`)}</datalist>
        ${text("select", "Devices", { placeholder: "every one; or: site=lyon and hw=aarch64" })}
        ${text("waves", "Waves: devices in all, or a share of those selected", { required: true })}
        ${text("bake", "Look at each wave for", { placeholder: "90s, 15m, 2h, 1d" })}
        ${choice("policy", "When a gate fails", POLICIES)}
        <details><summary>Before the first wave</summary><div class="order">
          ${choice("trial", "First runs", TRIALS)}
          ${order.trial && html`${text(order.trial === "ab" ? "ab" : "shadow", "Share of the requests", { hint: "As 10%." }, "share")}
            ${text("on", "On so many devices", { placeholder: "10%", hint: "A number, or a share of those selected." })}`}
        </div></details>
        <details><summary>When, and how many at once</summary><div class="order">
          ${text("slot", "Time of day in the device's own zone", { placeholder: "any; or: 22:00-04:00", hint: "By its label zone; UTC without one." })}
          ${text("spread", "Each device waits, by lot, up to", { placeholder: "no time; or: 30m" })}
          ${text("per_site", "Devices of a site at once, at most", { type: "number", min: 1, placeholder: "any" })}
          <label class="check"><input type="checkbox" checked=${order.approve} onChange=${set("approve")} /> A person lets each further wave begin</label>
        </div></details>
        <details><summary>Limits of the gates</summary><p class="soft">Empty: the server's own. <code>off</code>: not looked at. A share as <code>2%</code>; latency: how many times as long.</p>
          <div class="order limits">${Object.keys(GATES).filter((name) => order.trial === "shadow" || !OF_TRIAL.includes(name)).map((name) => html`<${Field} key=${name} label=${GATES[name]} name=${`gate.${name}`} error=${wrong}>
            ${(input) => html`<input ...${input} autocomplete="off" placeholder=${limitOf(name, preview.limits)} value=${order.limits[name] ?? ""} onInput=${limit(name)} />`}<//>`)}</div></details>
        <label class="check"><input type="checkbox" checked=${order.unchecked} onChange=${set("unchecked")} /> Do not look whether it is published</label>
        ${error && !error.field && html`<${Fault} error=${error} />`}
        <div class="actions"><button type="submit" class="main" disabled=${!preview.data || preview.data.live === 0 || sending}>${sending ? "Starting…" : "Start…"}</button></div>
      </form><//>
    <${Card} title="What it would do now"><${Previewed} of=${preview} wanted=${order.version !== ""} /><//></div>
    ${asking && preview.data && html`<${Dialog} title="Start this rollout?" onClose=${() => ask(false)}>
      <p><b>${order.version}</b> goes to ${number(preview.data.selected)} devices, ${number(preview.data.sizes[0])} of them first.${order.trial && ` Before that the candidate ${order.trial === "ab" ? "answers" : "is shown"} ${order.share} of the requests.`}</p>
      <div class="actions"><button class="quiet" onClick=${() => ask(false)}>Cancel</button><button class="main" disabled=${sending} onClick=${begin}>${sending ? "Starting…" : "Start"}</button></div><//>`}
  <//>`;
}

function limitOf(name, limits) {
  if (!limits || limits[name] === undefined) return "";
  if (limits[name] === null) return "off";
  return RATIOS.includes(name) ? `${figure(limits[name])} times` : `${figure(100 * limits[name])}%`;
}

/** What the server says an order would do, asked when nobody typed for a moment. */
function usePreview(body) {
  const said = JSON.stringify(body);
  const [state, put] = useState({ data: null, error: null, asking: false, limits: null });
  useEffect(() => {
    if (!body.version) {
      put((was) => ({ ...was, data: null, error: null, asking: false }));
      return undefined;
    }
    let left = false;
    put((was) => ({ ...was, asking: true }));
    const timer = setTimeout(async () => {
      try {
        const data = await post("rollouts/preview", body, newKey());
        if (!left) put({ data, error: null, asking: false, limits: { ...data.limits } });
      } catch (error) {
        if (!left) put((was) => ({ ...was, data: null, error, asking: false }));
      }
    }, 350);
    return () => {
      left = true;
      clearTimeout(timer);
    };
  }, [said]);
  return state;
}

function Previewed({ of, wanted }) {
  if (!wanted) return html`<${Empty} title="Name a version">Then this says how many devices are meant.<//>`;
  if (of.error?.field) return html`<${Empty} title="A field is not right yet">What is wrong stands beside it.<//>`;
  if (of.error) return html`<${Fault} error=${of.error} />`;
  if (!of.data) return html`<${Loading} what="preview" />`;
  const one = of.data;
  return html`<div aria-live="polite"><p class="lead">${number(one.selected)} devices match${one.selected === 0 ? ": the selection means nobody" : `; ${number(one.live)} of them may begin now`}</p>
    ${one.unable > 0 && html`<p>${number(one.unable)} cannot run it: ${one.unable_said}</p>`}
    ${one.taken > 0 && html`<p>${number(one.taken)} are held by another rollout: ${one.taken_by_name.slice(0, 5).join(", ")}</p>`}
    <${Table} label="Waves" keyOf=${(wave) => wave.at} rows=${one.sizes.map((size, at) => ({ size, at }))} columns=${[{ name: "Wave", of: (wave) => wave.at + 1 }, { name: "Devices in all", right: true, of: (wave) => number(wave.size) }]} />
    ${one.canaries.length > 0 && html`<h3>First</h3><p class="labels">${one.canaries.slice(0, 12).map((device) => html`<a href=${link(["devices", device])}>${device}</a> `)}${one.canaries.length > 12 && `and ${number(one.canaries.length - 12)} more`}</p>`}
    ${one.represented.length > 1 && html`<details><summary>By hardware and site</summary><${Table} label="The first wave by hardware and site" keyOf=${(kind) => `${kind.hw}/${kind.site}`} rows=${one.represented} columns=${[
      { name: "Hardware", of: (kind) => kind.hw || "–" }, { name: "Site", of: (kind) => kind.site || "–" }, { name: "In the first wave", right: true, of: (kind) => number(kind.canaries) }, { name: "Devices", right: true, of: (kind) => number(kind.devices) }]} /></details>`}</div>`;
}
