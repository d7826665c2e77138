// Drift alarms: what changed, since when, on which devices, and what persons did about it.
import { newKey, post, useGet, usePages } from "../api.js";
import { html, useCallback, useState } from "../html.js";
import { useLive } from "../live.js";
import {
  Ago, Badge, Card, Choice, Dialog, Empty, Facts, Fault, figure, Histogram, Loaded, number, Page,
  Pager, percent, plural, Search, Text,
} from "../parts.js";
import { may } from "../roles.js";
import { link, refine } from "../router.js";

const STATES = [["open", "Open"], ["resolved", "Resolved"], ["all", "All"]];
const LIMIT = 50;
const COMMENT_MAX = 2000;

export default function Alarms({ route, me }) {
  if (route.parts[1]) return html`<${Alarm} key=${route.parts[1]} id=${route.parts[1]} me=${me} />`;
  const { state = "open", device = "", model = "" } = route.query;
  const found = usePages("alarms", { state, device, model, limit: LIMIT }, 30_000);
  useChanges(found.reload);
  const nothing = state === "open" && !device && !model;
  return html`<${Page} title="Alarms">
    <form class="filters" role="search" aria-label="Alarms" onSubmit=${(event) => event.preventDefault()}>
      <${Choice} label="State" value=${state} options=${STATES} onChange=${(one) => refine(route, { state: one })} />
      <${Search} label="Device or group is" value=${device} onChange=${(text) => refine(route, { device: text })} />
      <${Search} label="Model is" value=${model} onChange=${(text) => refine(route, { model: text })} />
    </form>
    <${Loaded} of=${found} what="alarms" rows=${8} empty=${html`<${Empty}
      title=${nothing ? "No open alarm" : "No alarm fits these filters"}
    >${nothing ? "No feature has drifted beyond what the promised number of false alarms allows." : ""}<//>`}>
      ${(items) => html`<${AlarmList} items=${items} /><${Pager} of=${found} what="alarms" />`}
    <//>
  <//>`;
}

function useChanges(reload) {
  const heard = useCallback((told) => told.kind !== "event" && reload(), [reload]);
  useLive(heard);
}

/** Standing of an alarm: [tone, word]. */
export function standing(one) {
  if (one.resolved) return ["off", "resolved"];
  return one.acknowledged ? ["warn", "acknowledged"] : ["bad", "open"];
}

export function AlarmList({ items }) {
  return html`<ul class="list card">
    ${items.map((one) => {
      const [tone, word] = standing(one);
      return html`<li key=${one.id}>
        <div class="list-main">
          <${Badge} tone=${tone}>${word}<//>
          <a href=${link(["alarms", String(one.id)])}>${one.feature}</a>
          <span>on ${one.device}</span>
          ${one.scope !== "device" && html`<${Badge} tone="info">${one.scope}<//>`}
          <span class="soft">${one.model} ${one.version}</span>
          <span class="soft end">opened <${Ago} at=${one.opened} /></span>
        </div>
        <p class="soft">${one.what}</p>
        ${one.under > 0 && html`<p class="soft">${plural(one.under, "alarm")} of devices under it.</p>`}
      </li>`;
    })}
  </ul>`;
}

function Alarm({ id, me }) {
  const found = useGet(`alarms/${encodeURIComponent(id)}`, {}, 30_000);
  useChanges(found.reload);
  const crumbs = html`<a href=${link(["alarms"])}>Alarms</a>`;
  if (found.data === null) {
    return html`<${Page} title="Alarm ${id}" crumbs=${crumbs}>
      <${Loaded} of=${found} what="alarm">${() => null}<//>
    <//>`;
  }
  const one = found.data;
  const [tone, word] = standing(one);
  return html`<${Page}
      title=${html`${one.feature} on ${one.device} <${Badge} tone=${tone}>${word}<//>`}
      crumbs=${crumbs}
      actions=${may(me, "operator") && html`<${Actions} of=${one} done=${found.reload} />`}
    >
    ${found.error && html`<${Fault} error=${found.error} retry=${found.reload} />`}
    <p class="lead">${one.what}</p>
    <div class="grid">
      <${Card} title="Before and after" note="shares of rows by value">
        ${one.bars.length ? html`<${Histogram} bars=${one.bars} label="Shares of rows by value, before and after: ${one.what}" />`
          : html`<${Empty} title="No histogram was kept with this alarm" />`}
        ${one.cells.length > 0 && html`<table class="small"><caption>What moved most</caption>
          <thead><tr><th scope="col">Value</th><th scope="col" class="right">Before</th><th scope="col" class="right">After</th></tr></thead>
          <tbody>${one.cells.map((cell) => html`<tr><td>${cell.cell}</td>
            <td class="right">${percent(cell.before, 1)}</td><td class="right">${percent(cell.after, 1)}</td></tr>`)}</tbody></table>`}
      <//>
      <div class="stack">
      <${Card} title="Facts">
        <${Facts} of=${[
          [one.scope === "device" ? "Device" : "Group",
            one.scope === "device" ? html`<a href=${link(["devices", one.device])}>${one.device}</a>` : `${one.device} (${one.scope})`],
          ["Model", `${one.model} ${one.version}`],
          ["Feature", `${one.feature} (${one.source})`],
          ["Kind", one.kind],
          ["Began", html`<${Ago} at=${one.since} />`],
          ["Opened", html`<${Ago} at=${one.opened} />`],
          ["Resolved", one.resolved && html`<${Ago} at=${one.resolved} />`],
          ["Rows since", number(one.rows)],
          ["Evidence", `10^${figure(one.evidence)} to 1, threshold 10^${figure(one.threshold)}`],
          ["Devices", one.members ? `${number(one.moved)} of ${number(one.members)} moved` : ""],
          ["Listed under", one.parent && html`<a href=${link(["alarms", String(one.parent)])}>alarm ${one.parent}</a>`],
          ["Alarms under it", one.under || ""],
        ]} />
      <//>
      ${one.devices.length > 0 && html`<${Card} title="Clearest devices">
        <ul class="list">${one.devices.map((each) => html`<li><div class="list-main">
          <a href=${link(["devices", each.device])}>${each.device}</a>
          <span class="soft end">${percent(each.share)} of the evidence</span></div></li>`)}</ul><//>`}
      <${Card} title="What persons did">
        ${one.notes.length === 0 && html`<${Empty} title="Nothing yet">
          ${may(me, "operator") ? "Acknowledge it, so that others know you look after it." : "An operator's token may answer it."}<//>`}
        <ol class="list">${one.notes.map((note) => html`<li>
          <div class="list-main"><b>${note.author}</b> <${Badge} tone=${note.kind === "comment" ? "off" : note.kind === "resolved" ? "good" : "warn"}>${note.kind}<//>
            <span class="soft end"><${Ago} at=${note.at} /></span></div>
          ${note.text && html`<p class="said"><${Text}>${note.text}<//></p>`}</li>`)}</ol>
      <//>
      </div>
    </div>
  <//>`;
}

const WORDS = {
  acknowledge: ["Acknowledge", "acknowledge", "Say who looks after it, or nothing."],
  comment: ["Comment", "comments", "What is known about it?"],
  resolve: ["Resolve", "resolve", "What was it? Its monitor starts anew with the next window."],
};

function Actions({ of, done }) {
  const [what, ask] = useState(null);
  return html`
    ${!of.resolved && !of.acknowledged && html`<button class="main" onClick=${() => ask("acknowledge")}>Acknowledge</button>`}
    <button onClick=${() => ask("comment")}>Comment</button>
    ${!of.resolved && html`<button onClick=${() => ask("resolve")}>Resolve</button>`}
    ${what && html`<${Answer} what=${what} of=${of} onClose=${() => ask(null)} done=${done} />`}`;
}

function Answer({ what, of, onClose, done }) {
  const [title, path, hint] = WORDS[what];
  const [text, put] = useState("");
  const [under, all] = useState(false);
  const [error, say] = useState(null);
  const [sending, send] = useState(false);
  // One key for one wish: sent again after a lost answer it is still done once.
  const [wish, make] = useState({ key: newKey(), body: "" });
  async function submit(event) {
    event.preventDefault();
    const body = { comment: text, ...(what === "resolve" ? { with_devices: under } : {}) };
    const said = JSON.stringify(body);
    const mine = wish.body === "" || wish.body === said ? { ...wish, body: said } : { key: newKey(), body: said };
    make(mine);
    send(true);
    say(null);
    try {
      await post(`alarms/${of.id}/${path}`, body, mine.key);
      done();
      onClose();
    } catch (fault) {
      say(fault);
      send(false);
    }
  }
  return html`<${Dialog} title="${title} alarm ${of.id}" onClose=${onClose}>
    <form onSubmit=${submit}>
      <p class="soft">${of.feature} on ${of.device}</p>
      <label class="field tall"><span>Comment${what === "comment" ? "" : " (may be empty)"}</span>
        <textarea rows="4" maxlength=${COMMENT_MAX} required=${what === "comment"} placeholder=${hint}
          autofocus value=${text} onInput=${(event) => put(event.target.value)}></textarea></label>
      ${what === "resolve" && of.under > 0 && html`<label class="check"><input type="checkbox" checked=${under}
        onChange=${(event) => all(event.target.checked)} /> Resolve the ${plural(of.under, "alarm")} under it, too</label>`}
      ${error && html`<${Fault} error=${error} />`}
      <div class="actions">
        <button type="button" class="quiet" onClick=${onClose}>Cancel</button>
        <button type="submit" class="main" disabled=${sending}>${sending ? "Sending…" : title}</button>
      </div>
    </form>
  <//>`;
}
