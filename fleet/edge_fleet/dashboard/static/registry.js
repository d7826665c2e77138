// Every page of the dashboard.
//
// To add one: write views/NAME.js with
//
//     import { html } from "../html.js";
//     import { useGet } from "../api.js";
//     import { Card, Empty, Loaded, Page } from "../parts.js";
//     export default function Name({ route, me }) { return html`<${Page} title="…">…<//>`; }
//
// and one line below. `route.parts` are the parts of the address (#/name/part → ["name", "part"]),
// `route.query` its filters; `link(parts, query)` of router.js makes an href, `refine` sets filters.
// `me`: {name, role}; show a button only where `may(me, "operator")` of roles.js holds: the server
// refuses it anyway. Data come by `useGet(path, query, everyMs)` or `usePages`, both relative to
// /api/v1/; wrap them in <${Loaded} of=${…} empty=${…}> and the states for loading, error and empty
// are there. `useLive` of live.js tells of events and alarms as they come.
//
// No style attribute in text form, no innerHTML, no inline script: the page's policy refuses them.
// Colours are the custom properties at the top of style.css; put a view's own rules at its end.
//
// `menu`: its name in the navigation; without one it is reached by links only. `role`: who sees it
// there; everybody where there is none.
export const views = {
  "": { menu: "Fleet", load: () => import("./views/overview.js") },
  devices: { menu: "Devices", load: () => import("./views/devices.js") },
  alarms: { menu: "Alarms", load: () => import("./views/alarms.js") },
  rollouts: { menu: "Rollouts", load: () => import("./views/rollouts.js") },
  models: { menu: "Models", load: () => import("./views/models.js") },
  drift: { menu: "Drift", load: () => import("./views/drift.js") },
  quality: { menu: "Quality", load: () => import("./views/quality.js") },
  events: { menu: "Events", load: () => import("./views/events.js") },
  audit: { menu: "Audit", role: "admin", load: () => import("./views/audit.js") },
};
