// Who did what and when, newest first; for admins.
import { usePages } from "../api.js";
import { html } from "../html.js";
import { Ago, Badge, Empty, Loaded, Page, Pager, Search, Table, Text } from "../parts.js";
import { link, refine } from "../router.js";

const LIMIT = 100;
// What a subject is, and the page that tells of it: "rollout 3", "alarm 12", "device pi-1".
const PLACES = { rollout: "rollouts", alarm: "alarms", device: "devices" };

function Subject({ text }) {
  const [, kind, name] = /^(\w+) (.+)$/s.exec(text) ?? [];
  const place = Object.hasOwn(PLACES, kind ?? "") ? PLACES[kind] : null;
  return place ? html`<a href=${link([place, name])}>${text}</a>` : text;
}

const COLUMNS = [
  { name: "When", of: (one) => html`<${Ago} at=${one.at} />` },
  { name: "Who", of: (one) => one.actor },
  { name: "Did", of: (one) => html`<${Badge} tone="info">${one.action}<//>` },
  { name: "To", of: (one) => html`<${Subject} text=${one.subject} />` },
  { name: "Detail", wide: true, of: (one) => html`<${Text}>${one.detail}<//>` },
];

export default function Audit({ route }) {
  const { actor = "", action = "", subject = "" } = route.query;
  const found = usePages("audit", { actor, action, subject, limit: LIMIT });
  const filtered = actor || action || subject;
  return html`<${Page} title="Audit">
    <form class="filters" role="search" aria-label="Audit" onSubmit=${(event) => event.preventDefault()}>
      <${Search} label="Who is" value=${actor} onChange=${(text) => refine(route, { actor: text })} />
      <${Search} label="Did" value=${action} placeholder="rollout, alarm.resolve" onChange=${(text) => refine(route, { action: text })} />
      <${Search} label="To" value=${subject} placeholder="rollout 3" onChange=${(text) => refine(route, { subject: text })} />
    </form>
    <${Loaded} of=${found} what="audit" rows=${12} empty=${html`<${Empty}
      title=${filtered ? "No entry fits these filters" : "Nobody did anything yet"}
    >What persons and the server do to alarms, rollouts, devices and tokens stands here for good.
      <code>edge-fleet audit --verify</code> checks that nothing was altered.<//>`}>
      ${(items) => html`<${Table} label="Audit" columns=${COLUMNS} rows=${items} keyOf=${(one) => one.id} />
        <${Pager} of=${found} what="the audit" />`}
    <//>
  <//>`;
}
