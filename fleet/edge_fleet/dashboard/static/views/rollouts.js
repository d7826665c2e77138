// Rollouts: which are under way, how one stands wave by wave and gate by gate, and the words that
// stop it, let it go on, or take it back.
import { newKey, post, useGet, usePages } from "../api.js";
import { html, useCallback, useState } from "../html.js";
import { useLive } from "../live.js";
import {
  Ago, Badge, Card, Dialog, Empty, Facts, Fault, figure, Loaded, number, Page, Pager, percent,
  Shares, Table,
} from "../parts.js";
import { may } from "../roles.js";
import { link, refine } from "../router.js";
import { GATES, PHASES, POLICIES } from "./rollout_words.js";
import { Start } from "./start.js";

const ACTIVE = ["running", "paused", "waiting", "rolling-back"];
const WHERE = {
  installed: ["good", "installed"], asked: ["info", "under way"], chosen: ["off", "not asked yet"],
  refused: ["bad", "refused it"], overdue: ["bad", "too late"], silent: ["warn", "silent"],
  odd: ["bad", "another bundle"], back: ["off", "taken back"],
};
const STATES = { waiting: ["info", "waiting"], passing: ["good", "passing"], failed: ["bad", "failed"], "cannot judge": ["off", "cannot judge"] };

export default function Rollouts({ route, me }) {
  const which = route.parts[1];
  if (which === "new") return html`<${Start} route=${route} me=${me} />`;
  if (which) return html`<${One} key=${which} id=${which} me=${me} route=${route} />`;
  return html`<${List} me=${me} />`;
}

/** Ask again when the stream tells of a rollout. */
function useTold(reload) {
  useLive(useCallback((told) => told.kind.startsWith("rollout") && reload(), [reload]));
}

function iso(ms) {
  return ms ? new Date(ms).toISOString() : null;
}

function Phase({ of }) {
  const [tone, word] = PHASES[of] ?? ["off", of];
  return html`<${Badge} tone=${tone}>${word}<//>`;
}

function List({ me }) {
  const found = usePages("rollouts", { limit: 50 }, 15_000);
  useTold(found.reload);
  const begin = may(me, "operator") && html`<a class="button main" href=${link(["rollouts", "new"])}>Start a rollout</a>`;
  return html`<${Page} title="Rollouts" actions=${begin}>
    <${Loaded} of=${found} what="rollouts" empty=${html`<${Empty} title="No rollout yet">A rollout brings a version to some
      devices, then to more, for as long as nothing speaks against it.<//>`}>
      ${(items) => html`<${Table} label="Rollouts, newest first" keyOf=${(one) => one.id} rows=${items} columns=${[
        { name: "No.", right: true, of: (one) => html`<a href=${link(["rollouts", String(one.id)])}>${one.id}</a>` },
        { name: "Version", of: (one) => html`<a href=${link(["rollouts", String(one.id)])}>${one.model} ${one.version}</a>` },
        { name: "State", of: (one) => html`<${Phase} of=${one.phase} />` },
        { name: "Wave", right: true, of: (one) => `${one.wave} of ${one.waves}` },
        { name: "Asked", right: true, of: (one) => `${number(one.asked)} of ${number(one.members)}` },
        { name: "Why", wide: true, phone: false, of: (one) => one.reason },
        { name: "Changed", phone: false, of: (one) => html`<${Ago} at=${iso(one.updated_ms)} />` },
      ]} /><${Pager} of=${found} what="rollouts" />`}
    <//>
  <//>`;
}

function One({ id, me, route }) {
  const found = useGet(`rollouts/${encodeURIComponent(id)}`, {}, 5000);
  useTold(found.reload);
  const crumbs = html`<a href=${link(["rollouts"])}>Rollouts</a>`;
  const one = found.data;
  if (one === null) return html`<${Page} title="Rollout ${id}" crumbs=${crumbs}><${Loaded} of=${found} what="rollout">${() => null}<//><//>`;
  return html`<${Page} title=${html`${one.model} ${one.version} <${Phase} of=${one.phase} />`} crumbs=${crumbs}
      actions=${may(me, "operator") && html`<${Words} of=${one} done=${found.reload} />`}>
    ${found.error && html`<${Fault} error=${found.error} retry=${found.reload} />`}
    ${one.reason && html`<p class="lead">${one.reason}</p>`}
    <div class="grid">
      <${Card} wide title="Waves" note=${`${number(one.selected)} devices are selected${one.order.select ? `: ${one.order.select}` : ""}`}><${Waves} of=${one} />${one.unable > 0 && html`<p class="soft">${number(one.unable)} of them cannot run it: ${one.unable_said}</p>`}<//>
      <${Card} wide title="Gates of this wave" note=${one.baking_ms ? html`hold since <${Ago} at=${iso(one.baking_ms)} />` : "all have to hold before the next wave"}><${Gates} of=${one} /><//>
      <${Card} title="Its devices"><${Shares} label="Devices of the rollout" parts=${Object.entries(one.devices).map(([state, value]) => ({ name: WHERE[state]?.[1] ?? state, value, tone: WHERE[state]?.[0] ?? "off" }))} />
        ${Object.keys(one.devices).length === 0 && html`<${Empty} title="None was chosen yet" />`}
        ${one.troubled.length > 0 && html`<h3>In trouble</h3><p class="labels">${one.troubled.map((device) => html`<a href=${link(["devices", device])}>${device}</a> `)}</p>`}<//>
      <${Card} title="What was ordered"><${Facts} of=${[
        ["Selection", one.order.select || "every device"], ["A wave is looked at for", span(one.order.bake_s)], ["When a gate fails", POLICIES[one.order.policy]],
        ["At most at a site", one.order.per_site || ""], ["Between waves", one.order.approve ? "a person says go" : ""],
        ["Time slot", one.order.slot ? `${clock(one.order.slot.start)} to ${clock(one.order.slot.end)}` : ""],
        ["Began", html`<${Ago} at=${iso(one.started_ms)} />`], ["Bundle", one.digest ? html`<code>${one.digest.slice(0, 16)}…</code>` : ""],
      ]} /><//>
      <${Card} wide title="Devices"><${Members} id=${one.id} route=${route} /><//>
      <${Card} wide title="What happened"><ol class="list">${one.notes.toReversed().map((note) => html`<li><div class="list-main"><${Phase} of=${note.phase} />
        <span>wave ${note.wave + 1}</span><span class="soft end"><${Ago} at=${iso(note.at_ms)} /></span></div>${note.said && html`<p class="said">${note.said}</p>`}</li>`)}</ol>
        ${one.notes.length === 0 && html`<${Empty} title="Nothing yet" />`}<//>
    </div>
  <//>`;
}


function span(seconds) {
  if (!seconds) return "no time";
  return seconds % 3600 === 0 ? `${seconds / 3600} h` : seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
}

function clock(minutes) {
  return `${String(Math.floor(minutes / 60)).padStart(2, "0")}:${String(minutes % 60).padStart(2, "0")}`;
}

function Waves({ of }) {
  const words = { over: "done", "at-hand": "at hand", "to-come": "to come" };
  return html`<ol class="waves">${of.each.map((wave) => {
    const mine = Object.values(wave.devices).reduce((a, b) => a + b, 0);
    const stopped = wave.stage === "at-hand" && ["halted", "aborted", "rolled-back"].includes(of.phase);
    return html`<li class="wave ${wave.stage} ${stopped ? "stopped" : ""}" aria-current=${wave.stage === "at-hand" ? "step" : undefined}>
      <p class="wave-head"><b>Wave ${wave.number}</b> <span class="soft">${stopped ? "stopped here" : words[wave.stage]}</span></p>
      <p>up to ${number(wave.size)} ${wave.size === 1 ? "device" : "devices"}</p>
      ${mine > 0 && html`<div class="meter" role="img" aria-label="${Object.entries(wave.devices).map(([state, n]) => `${n} ${WHERE[state]?.[1] ?? state}`).join(", ")}">
        ${Object.entries(wave.devices).map(([state, n]) => html`<span class=${WHERE[state]?.[0] ?? "off"} style=${{ flexGrow: n }} title="${n} ${WHERE[state]?.[1] ?? state}"></span>`)}</div>
        <p class="soft">${Object.entries(wave.devices).map(([state, n]) => `${number(n)} ${WHERE[state]?.[1] ?? state}`).join(", ")}</p>`}
    </li>`;
  })}</ol>`;
}

function Gates({ of }) {
  if (!of.gates.length) return html`<${Empty} title=${ACTIVE.includes(of.phase) ? "No gate speaks yet" : "It is over"}>${ACTIVE.includes(of.phase) ? "Gates speak once devices of the wave were asked." : ""}<//>`;
  const ratio = (gate) => gate.gate === "latency" || gate.gate === "shadow_latency";
  const value = (gate, v) => (v === null ? "–" : (ratio(gate) ? `${figure(v)} ×` : percent(v, 1)).replace(" ", "\u00a0"));
  return html`<div class="gates"><${Table} label="Gates" keyOf=${(gate) => gate.gate} rows=${of.gates} columns=${[
    { name: "Gate", of: (gate) => html`${GATES[gate.gate] ?? gate.gate}<span class="phone-only soft">${gate.said}</span>` },
    { name: "State", of: (gate) => html`<${Badge} tone=${STATES[gate.state]?.[0] ?? "off"}>${STATES[gate.state]?.[1] ?? gate.state}<//>` },
    { name: "Figure", right: true, phone: false, of: (gate) => value(gate, gate.value) },
    { name: "Limit", right: true, of: (gate) => `${gate.gate === "installed" ? "≥" : "≤"}\u00a0${value(gate, gate.limit)}` },
    { name: "Sample", right: true, phone: false, of: (gate) => `${number(gate.sample)}${gate.least ? ` of ${number(gate.least)}` : ""}` },
    { name: "Says", wide: true, phone: false, of: (gate) => gate.said },
  ]} /></div>`;
}

function Members({ id, route }) {
  const { state = "", wave = "0" } = route.query;
  const found = usePages(`rollouts/${id}/devices`, { state, wave, limit: 25 }, 15_000);
  return html`<div class="filters"><label class="field"><span>Where</span><select value=${state} onChange=${(event) => refine(route, { state: event.target.value })}>
      <option value="">anywhere</option>${Object.entries(WHERE).map(([name, [, word]]) => html`<option value=${name} selected=${name === state}>${word}</option>`)}</select></label></div>
    <${Loaded} of=${found} what="devices" empty=${html`<${Empty} title="No device" />`}>${(items) => html`<${Table} label="Devices of the rollout" keyOf=${(one) => one.device} rows=${items} columns=${[
      { name: "Device", of: (one) => html`<a href=${link(["devices", one.device])}>${one.device}</a>` },
      { name: "Where", of: (one) => html`<${Badge} tone=${WHERE[one.state]?.[0] ?? "off"}>${WHERE[one.state]?.[1] ?? one.state}<//>` },
      { name: "Wave", right: true, of: (one) => one.wave },
      { name: "Runs", of: (one) => one.active },
      { name: "Phase", phone: false, of: (one) => one.phase },
      { name: "Follows", phone: false, of: (one) => html`${one.follows}${!one.heeds && html` <span class="soft">not heard yet</span>`}` },
      { name: "Heard", phone: false, of: (one) => html`<${Ago} at=${iso(one.heard_ms)} />` },
    ]} /><${Pager} of=${found} what="devices" />`}<//>`;
}

// -- words that steer -------------------------------------------------------------------------------

const SAY = {
  abort: ["Stop", "Stop this rollout", "No further device is asked, and what is under way is called back. Devices that run the version keep it. It cannot be resumed.", "stop"],
  rollback: ["Roll back", "Take all of it back", "Every device of the rollout goes back to what it followed before.", ""],
  pause: ["Pause", "Pause this rollout", "No further device is asked until it is resumed; what is under way goes on.", ""],
  resume: ["Resume", "Resume this rollout", "It goes on where it stopped; a gate that failed is passed over in this wave.", "main"],
  approve: ["Approve", "Let the next wave begin", "A person's word is what it waits for.", "main"],
};

function fitting(phase) {
  if (phase === "running") return ["abort", "pause", "rollback"];
  if (phase === "paused") return ["abort", "resume", "rollback"];
  if (phase === "waiting") return ["approve", "abort", "rollback"];
  if (phase === "halted") return ["resume", "rollback"];
  return ["rolling-back", "rolled-back"].includes(phase) ? [] : ["rollback"];
}

function Words({ of, done }) {
  const [word, ask] = useState(null);
  return html`${fitting(of.phase).map((one) => html`<button key=${one} class=${SAY[one][3]} onClick=${() => ask(one)}>${SAY[one][0]}</button>`)}
    ${word && html`<${Say} word=${word} of=${of} onClose=${() => ask(null)} done=${done} />`}`;
}

function Say({ word, of, onClose, done }) {
  const [name, title, text, tone] = SAY[word];
  const [comment, put] = useState("");
  const [error, say] = useState(null);
  const [sending, send] = useState(false);
  const [wish, make] = useState({ key: newKey(), body: null });
  async function submit(event) {
    event.preventDefault();
    // One key for one wish: sent again after a lost answer it is still done once.
    const mine = wish.body === null || wish.body === comment ? { ...wish, body: comment } : { key: newKey(), body: comment };
    make(mine);
    send(true);
    say(null);
    try {
      await post(`rollouts/${of.id}/${word}`, { comment }, mine.key);
      done();
      onClose();
    } catch (fault) {
      say(fault);
      send(false);
    }
  }
  return html`<${Dialog} title=${title} onClose=${onClose}><form onSubmit=${submit}>
    <p><b>${of.model} ${of.version}</b>, wave ${of.wave} of ${of.waves}</p><p class="soft">${text}</p>
    <label class="field tall"><span>Why (may be empty; kept in the audit)</span><textarea rows="3" maxlength="2000" autofocus value=${comment} onInput=${(event) => put(event.target.value)}></textarea></label>
    ${error && html`<${Fault} error=${error} />`}
    <div class="actions"><button type="button" class="quiet" onClick=${onClose}>Cancel</button>
      <button type="submit" class=${tone || "main"} disabled=${sending}>${sending ? "Sending…" : name}</button></div>
  </form><//>`;
}
