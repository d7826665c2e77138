// What happened on devices, newest first; new ones appear as they come.
import { usePages } from "../api.js";
import { html, useCallback, useEffect, useRef, useState } from "../html.js";
import { useConnection, useLive } from "../live.js";
import { Ago, Badge, Empty, Loaded, Page, Pager, Search, Table, Text } from "../parts.js";
import { link, refine } from "../router.js";

const LIMIT = 100;
const NEW_MAX = 200;

export const COLUMNS = [
  { name: "When", of: (one) => html`<${Ago} at=${one.received} />` },
  { name: "Device", of: (one) => html`<a href=${link(["devices", one.device])}>${one.device}</a>` },
  { name: "What", of: (one) => html`<${Badge} tone=${tone(one.kind)} title=${one.kind}>${one.kind}<//>` },
  { name: "Model", phone: false, of: (one) => `${one.model} ${one.version}` },
  { name: "Detail", wide: true, of: (one) => html`<${Text}>${one.detail}<//>` },
];

function tone(kind) {
  if (/fail|fault|quarantin|refus|roll|duplicate|error/i.test(kind)) return "bad";
  return /commit|install|proved|online/i.test(kind) ? "good" : "off";
}

export function keyOf(one) {
  return `${one.device}/${one.boot}/${one.seq}`;
}

/** Events of a list with those that came since in front, each once. */
export function useEvents(device, kind, limit) {
  const found = usePages("events", { device, kind, limit });
  const [fresh, put] = useState([]);
  const heard = useCallback(
    (told) => {
      const fits = told.kind === "event" && (!device || told.data.device === device)
        && (!kind || told.data.kind === kind);
      if (fits) put((was) => [{ ...told.data, fresh: true }, ...was].slice(0, NEW_MAX));
    },
    [device, kind],
  );
  useEffect(() => put([]), [device, kind]);
  useLive(heard);
  const connection = useConnection();
  const broke = useRef(false);
  useEffect(() => {
    if (connection === "live" && broke.current) found.reload(); // what came meanwhile
    broke.current = connection === "broken";
  }, [connection]);
  if (found.items === null || found.page > 1) return found;
  const had = new Set(found.items.map(keyOf));
  const added = fresh.filter((one) => !had.has(keyOf(one)) && had.add(keyOf(one)));
  return { ...found, items: [...added, ...found.items] };
}

export default function Events({ route }) {
  const { device = "", kind = "" } = route.query;
  const found = useEvents(device, kind, LIMIT);
  const filtered = device || kind;
  return html`<${Page} title="Events">
    <form class="filters" role="search" aria-label="Events" onSubmit=${(event) => event.preventDefault()}>
      <${Search} label="Device is" value=${device} onChange=${(text) => refine(route, { device: text })} />
      <${Search} label="Kind is" value=${kind} onChange=${(text) => refine(route, { kind: text })} />
    </form>
    <${Loaded} of=${found} what="events" rows=${12} empty=${html`<${Empty}
      title=${filtered ? "No event fits these filters" : "Nothing happened yet"}
    >Updates, faults and roll-backs of devices appear here as they happen.<//>`}>
      ${(items) => html`<${Table} label="Events" columns=${COLUMNS} rows=${items} keyOf=${keyOf} />
        <${Pager} of=${found} what="events" />`}
    <//>
  <//>`;
}
