// How good a version has been: estimated without labels and by labels that came, and what neither
// can see.
import { useGet } from "../api.js";
import { Band } from "../components/band.js";
import { PERIODS, Siblings, useVersions, VersionChoice } from "../components/versions.js";
import { html } from "../html.js";
import { Card, Choice, Empty, Facts, Icon, Loaded, number, Page, percent } from "../parts.js";
import { refine } from "../router.js";

const METHODS = {
  score: ["estimated from scores", "first", true], raked: ["from weighted reference rows", "third", true],
  labels: ["by labels that came", "second", false],
};
const NAMES = { accuracy: "Accuracy", precision: "Precision", recall: "Recall", f1: "F1", auc: "AUC" };

export default function Quality({ route }) {
  const { found, versions, chosen } = useVersions(route.parts[1]);
  if (!chosen) {
    return html`<${Page} title="Quality"><${Loaded} of=${found} what="versions">${() => html`<${Empty}
      title="No version has been counted yet" />`}<//><//>`;
  }
  return html`<${Page} title="Quality of ${chosen.name}" actions=${html`<${Siblings} here="quality" bundle=${chosen.bundle} />`}>
    <form class="filters" aria-label="What is shown" onSubmit=${(event) => event.preventDefault()}>
      <${VersionChoice} page="quality" versions=${versions} chosen=${chosen} query=${{ hours: route.query.hours }} />
      <${Choice} label="Period" value=${route.query.hours ?? "168"} options=${PERIODS} onChange=${(hours) => refine(route, { hours })} />
    </form>
    <${OfVersion} key=${chosen.bundle} bundle=${chosen.bundle} route=${route} />
  <//>`;
}

function OfVersion({ bundle, route }) {
  const found = useGet(`bundles/${bundle}/quality`, { hours: route.query.hours ?? "168" }, 60_000);
  return html`<${Loaded} of=${found} what="quality" rows=${8}>${(data) => html`<${Shown} of=${data} route=${route} />`}<//>`;
}

function Shown({ of: data, route }) {
  const every = data.points.flatMap((point) => point.estimates);
  const figures = Object.keys(NAMES).filter((name) => every.some((one) => one.figure === name && one.value !== null));
  const wanted = route.query.figure ?? "accuracy";
  const chosen = figures.includes(wanted) ? wanted : figures[0];
  const refused = [...new Map(every.filter((one) => one.refused).map((one) => [`${one.figure} ${one.method}`, one])).values()];
  const used = [...new Set(every.map((one) => one.method))];
  if (data.why_not) return html`<${Card} title="Nothing to estimate from"><${Empty} title=${data.why_not} /><//>`;
  return html`<div class="grid">
    <${Card} wide title=${chosen ? NAMES[chosen] : "Over time"} note="over all devices; areas and bars are 95 % intervals"
      actions=${figures.length > 1 && html`<${Choice} label="Figure" value=${chosen} options=${figures.map((name) => [name, NAMES[name]])} onChange=${(figure) => refine(route, { figure })} />`}>
      ${chosen ? html`<${Band} label="${NAMES[chosen]} over time" format=${(value) => Number(value).toFixed(3)} series=${series(data, chosen, used)}
        line=${chosen in data.build ? { value: data.build[chosen], name: "at its build" } : null} />`
        : html`<${Empty} title="Every estimate was refused">The reasons stand below.<//>`}
    <//>
    <${Card} title="What these figures cannot see"><ul class="list blind">${Object.entries(data.blind).filter(([method]) => used.includes(method) || method === "raked").map(([method, text]) => html`<li>
      <p><${Icon} state="info" /> <b>${METHODS[method][0]}</b></p><p>${text}</p>
      ${method === "raked" && html`<p class="soft">Not drawn here: it takes labelled rows that stay on their machine:${" "}
        <code>edge-fleet quality --reference ROWS.csv --answers ANSWERS.csv --target NAME</code></p>`}</li>`)}</ul><//>
    <${Card} title="On what they rest">
      <${Facts} of=${[
        ["Scores calibrated by", data.calibration],
        ["Rows with a score", number(sum(data.points, "rows"))],
        ["Labels that came", number(sum(data.points, "labels"))],
        ["Accuracy at the build", "accuracy" in data.build ? percent(data.build.accuracy, 1) : "not measured"],
      ]} />
      ${refused.length > 0 && html`<h3>Not estimated, and why</h3><ul class="list">${refused.map((one) => html`<li><b>${NAMES[one.figure] ?? one.figure}</b>,
        ${" "}${METHODS[one.method][0]}: ${one.refused}</li>`)}</ul>`}
    <//>
  </div>`;
}

function sum(points, name) {
  return points.reduce((total, one) => total + one[name], 0);
}

function series(data, figure, used) {
  return used.filter((method) => data.points.some((point) => point.estimates.some((one) => one.method === method && one.figure === figure && one.value !== null)))
    .map((method) => {
      const [name, tone, band] = METHODS[method];
      return { name, tone, band, points: data.points.map((point) => {
        const one = point.estimates.find((each) => each.method === method && each.figure === figure);
        return { start: point.start, value: one?.value ?? null, low: one?.low ?? null, high: one?.high ?? null, note: one?.refused ?? "" };
      }) };
    });
}
