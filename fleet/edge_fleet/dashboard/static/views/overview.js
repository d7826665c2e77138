// The fleet at a glance: where devices are, how they are, what they run, what wants a person.
import { useGet } from "../api.js";
import { html, useCallback } from "../html.js";
import { useLive } from "../live.js";
import {
  Ago, Badge, Card, duration, Empty, Icon, Loaded, number, Page, percent, plural, Shares, short, Stat,
} from "../parts.js";
import { link } from "../router.js";
import { PHASES } from "./rollout_words.js";

const EVERY_MS = 10_000;

export default function Overview() {
  const found = useGet("overview", {}, EVERY_MS);
  const heard = useCallback((told) => told.kind !== "event" && found.reload(), [found.reload]);
  useLive(heard);
  return html`<${Page} title="Fleet">
    <${Loaded} of=${found} what="fleet" rows=${8}>${(fleet) => html`<${Glance} of=${fleet} />`}<//>
  <//>`;
}

function Glance({ of }) {
  if (of.devices === 0) {
    return html`<${Empty} title="No device was heard of yet">
      ${of.collecting
        ? "The collector runs and waits. Start an agent with the fleet's broker."
        : "No collector runs: start edge-fleet serve."}
    <//>`;
  }
  return html`<${Notes} of=${of} />
    <div class="stats">
      <${Stat} name="Devices" value=${number(of.devices)} href=${link(["devices"])}
        note="last heard of ${duration(secondsSince(of.last_heard, of.now))} ago" />
      <${Stat} name="Online" value=${percent(of.online / of.devices, of.online === of.devices ? 0 : 1)}
        note=${plural(of.online, "device")} href=${link(["devices"], { state: "online" })} />
      <${Stat} name="Silent" value=${number(of.silent)} tone=${of.silent ? "warn" : ""}
        note="said online, not heard of" href=${link(["devices"], { state: "silent" })} />
      <${Stat} name="Offline" value=${number(of.offline)} tone=${of.offline ? "off" : ""}
        note="said goodbye or were lost" href=${link(["devices"], { state: "offline" })} />
      <${Stat} name="Open alarms" value=${number(of.open_alarms)} tone=${of.open_alarms ? "bad" : "good"}
        note=${of.open_alarms ? `${number(of.unacknowledged)} nobody looks after` : "nothing to look after"}
        href=${link(["alarms"])} />
      <${Stat} name="Telemetry lag" value=${of.lag ? duration(of.lag.p95_s) : "–"}
        note=${of.lag ? `95 of 100 below; median ${duration(of.lag.median_s)}` : "no window yet"} />
      <${Stat} name="Predictions counted" value=${short(of.rows)} note="in ${plural(of.windows, "window")}" />
    </div>
    <div class="grid">
      <${Card} title=${of.places.length ? "Map" : "Sites"} wide note=${sitesNote(of)}>
        ${of.places.length > 0 && html`<${Plane} of=${of} />`}
        <${Sites} of=${of} />
      <//>
      <${Versions} of=${of} />
      <${Rollouts} of=${of} />
    </div>`;
}

function secondsSince(iso, now) {
  return iso ? Math.max(0, (Date.parse(now) - Date.parse(iso)) / 1000) : null;
}

function Notes({ of }) {
  if (of.notes.length === 0) return null;
  return html`<ul class="notes">
    ${of.notes.map((one) => html`<li><${Icon} state="silent" />${one}</li>`)}
  </ul>`;
}

function sitesNote(of) {
  const count = of.sites.length + of.sites_left_off;
  const left = of.sites_left_off ? `, the ${of.sites.length} largest` : "";
  return `${number(count)} by the label site${left}; size: devices, colour: alarms and share online`;
}

/** Health in four steps, each with its word: colour is not alone. */
function health(site) {
  const share = site.online / site.devices;
  if (site.alarms > 0) return ["bad", "alarm"];
  if (share >= 0.97) return ["good", "online"];
  return share >= 0.9 ? ["fair", "silent"] : ["poor", "offline"];
}

function Sites({ of }) {
  return html`<ul class="sites">
    ${of.sites.map((site) => {
      const [tone, icon] = health(site);
      const missing = site.silent + site.offline;
      return html`<li key=${site.site} style=${{ flexGrow: Math.sqrt(site.devices) }}>
        <a
          class="site ${tone}"
          href=${link(["devices"], site.site ? { label: `site:${site.site}` } : {})}
          title="${site.site || "no site"}: ${site.online} online, ${site.silent} silent, ${site.offline} offline, ${plural(site.alarms, "open alarm")}"
        >
          <span class="site-name"><${Icon} state=${icon} />${site.site || html`<em>no site</em>`}</span>
          <span class="site-figure"><b>${percent(site.online / site.devices)}</b> of ${number(site.devices)}</span>
          <span class="site-meter" aria-hidden="true"><i style=${{ width: `${(100 * site.online) / site.devices}%` }}></i></span>
          <span class="soft site-note">${
            site.alarms ? plural(site.alarms, "alarm") : missing ? `${number(missing)} missing` : "all online"
          }</span>
        </a>
      </li>`;
    })}
  </ul>`;
}

/** Devices by their labels lat and lon, on a plain plane: x is longitude shrunk by the cosine of the
 * middle latitude (equirectangular projection), which keeps a region's shape. */
function Plane({ of }) {
  const lats = of.places.map((one) => one.lat);
  const lons = of.places.map((one) => one.lon);
  const middle = (Math.min(...lats) + Math.max(...lats)) / 2;
  const shrink = Math.max(Math.cos((middle * Math.PI) / 180), 0.1);
  const span = Math.max((Math.max(...lons) - Math.min(...lons)) * shrink, (Math.max(...lats) - Math.min(...lats)) * 2, 0.02);
  const left = ((Math.min(...lons) + Math.max(...lons)) / 2) * shrink - span / 2;
  const top = middle + span / 4;
  const order = { online: 0, offline: 1, silent: 2 };
  const drawn = [...of.places].sort((a, b) => (a.alarms > 0) - (b.alarms > 0) || order[a.state] - order[b.state]);
  return html`<div class="plane">
    <svg viewBox="0 0 1000 500" role="img" aria-label="${of.places.length} devices by their coordinates">
      ${[1, 2, 3].map((n) => html`<path class="rule" d="M0 ${n * 125}H1000M${n * 250} 0V500" />`)}
      ${drawn.map((one) => {
        const x = 40 + ((one.lon * shrink - left) / span) * 920;
        const y = 20 + ((top - one.lat) / span) * 920;
        return html`<a href=${link(["devices", one.device])} aria-label="${one.device}, ${one.state}">
          <circle class="place ${one.alarms ? "bad" : one.state}" cx=${x.toFixed(1)} cy=${y.toFixed(1)} r=${one.alarms ? 8 : 6}>
            <title>${one.device}: ${one.state}${one.alarms ? `, ${plural(one.alarms, "alarm")}` : ""}</title>
          </circle>
        </a>`;
      })}
    </svg>
    <p class="legend soft">
      <span><i class="good"></i>online</span><span><i class="warn"></i>silent</span>
      <span><i class="off"></i>offline</span><span><i class="bad"></i>open alarm</span>
      ${of.places_left_off > 0 && html`<span>${number(of.places_left_off)} more are not drawn</span>`}
    </p>
  </div>`;
}

const HUES = 8;

function Versions({ of }) {
  const models = [...new Set(of.versions.map((one) => one.model))];
  return html`<${Card} title="Versions" note="devices by the version that answers">
    ${models.length === 0 && html`<${Empty} title="No device runs a model yet" />`}
    ${models.map((model) => {
      const parts = of.versions.filter((one) => one.model === model);
      const shown = parts.slice(0, HUES - 1);
      const rest = parts.slice(HUES - 1).reduce((sum, one) => sum + one.devices, 0);
      return html`<div class="model" key=${model}>
        <h3>${model}</h3>
        <${Shares} label="Versions of ${model}" parts=${[
          ...shown.map((one, at) => ({
            name: one.version, value: one.devices, hue: at,
            href: link(["devices"], { model, version: one.version }),
          })),
          ...(rest ? [{ name: "others", value: rest, hue: HUES - 1 }] : []),
        ]} />
      </div>`;
    })}
  <//>`;
}

function Rollouts({ of }) {
  const active = of.rollouts.filter((one) => one.active);
  const ended = of.rollouts.filter((one) => !one.active).slice(0, 5);
  return html`<${Card} title="Rollouts" note=${active.length ? `${active.length} under way` : "none under way"}>
    ${of.rollouts.length === 0
      ? html`<${Empty} title="No rollout yet">edge-fleet rollout start NAME@VERSION begins one.<//>`
      : html`<ul class="list">
          ${[...active, ...ended].map((one) => [one, PHASES[one.phase] ?? ["off", one.phase]]).map(([one, [tone, word]]) => html`<li key=${one.id}>
            <div class="list-main">
              <a href=${link(["rollouts", String(one.id)])}>${one.model} ${one.version}</a>
              <${Badge} tone=${tone}>${word}<//>
              ${one.active && html`<span class="soft">wave ${one.wave} of ${one.waves}</span>`}
              <span class="soft end"><${Ago} at=${one.updated} /></span>
            </div>
            ${one.reason && html`<p class="soft">${one.reason}</p>`}
          </li>`)}
        </ul>`}
  <//>`;
}
