// Which version a page is of: the one in the address, else the one that most devices run.
import { useGet } from "../api.js";
import { html } from "../html.js";
import { Select } from "../parts.js";
import { link } from "../router.js";

export const PERIODS = [["6", "6 h"], ["24", "24 h"], ["168", "7 days"], ["720", "30 days"], ["2160", "90 days"]];

/** {found, versions: [{bundle, name, model, version, …}], chosen}. `chosen`: undefined while unknown, null for none. */
export function useVersions(bundle) {
  const found = useGet("models", {}, 60_000);
  const versions = (found.data ?? []).flatMap((model) => model.versions
    .filter((one) => one.bundle)
    .map((one) => ({ ...one, model: model.model, alarms: model.open_alarms, name: `${model.model} ${one.version}` })));
  const most = versions.toSorted((a, b) => b.running - a.running || b.rows - a.rows)[0];
  const chosen = bundle ? (versions.find((one) => one.bundle === bundle) ?? { bundle, name: bundle.slice(0, 12) }) : found.data ? (most ?? null) : undefined;
  return { found, versions, chosen };
}

export function VersionChoice({ page, versions, chosen, query }) {
  return html`<div class="version"><${Select} label="Version" value=${chosen.bundle}
    options=${versions.map((one) => [one.bundle, `${one.name} · ${one.running || one.counted} devices`])}
    onChange=${(bundle) => { location.hash = link([page, bundle], query).slice(1); }} /></div>`;
}

/** Links to the other pages of a version. */
export function Siblings({ here, bundle }) {
  const pages = [["models", "Model"], ["drift", "Drift"], ["quality", "Quality"]];
  return html`<nav class="siblings" aria-label="Pages of this version">${pages.map(([page, name]) => html`<a
    href=${link([page, bundle])} aria-current=${page === here ? "page" : undefined}>${name}</a>`)}</nav>`;
}
