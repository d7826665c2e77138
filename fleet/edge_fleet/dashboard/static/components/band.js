// Figures over time with their intervals, and the same as a table.
import { html } from "../html.js";
import { figure } from "../parts.js";
import { moment } from "./heatmap.js";

const WIDTH = 760;
const HEIGHT = 220;
const LEFT = 46;
const FOOT = 22;

/**
 * `series`: [{name, tone, band, points: [{start, value, low, high, note}]}], all of the same starts;
 * value null: none. `band`: draw the interval as an area, else as bars. `line`: {value, name}, a
 * level to compare with. `format`: of a value.
 */
export function Band({ series, line, label, format = figure }) {
  const all = series.flatMap((one) => one.points.flatMap((p) => [p.value, p.low, p.high]))
    .concat(line ? [line.value] : []).filter((v) => v !== null && v !== undefined);
  if (!all.length) return null;
  let low = Math.min(...all);
  let high = Math.max(...all);
  const pad = Math.max((high - low) * 0.12, Math.abs(high) * 0.01, 1e-6);
  low -= pad;
  high += pad;
  const many = series[0].points.length;
  const x = (at) => LEFT + ((at + 0.5) * (WIDTH - LEFT - 8)) / many;
  const y = (value) => 8 + ((high - value) * (HEIGHT - FOOT - 8)) / (high - low);
  const ticks = [0, 1, 2, 3].map((n) => low + ((high - low) * (n + 0.5)) / 4);
  const every = Math.max(1, Math.round(many / 6));
  const starts = series[0].points.map((p) => p.start);
  const daily = many < 2 || Date.parse(starts[1]) - Date.parse(starts[0]) >= 14_400_000;
  return html`<figure class="band">
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${label}>
      ${ticks.map((value) => html`<g><line class="rule" x1=${LEFT} x2=${WIDTH - 8} y1=${y(value)} y2=${y(value)} />
        <text x=${LEFT - 6} y=${y(value) + 4} text-anchor="end">${format(value)}</text></g>`)}
      ${starts.map((start, at) => at % every === 0 && html`<text x=${x(at)} y=${HEIGHT - 6} text-anchor="middle">${daily ? start.slice(5, 10) : start.slice(11, 16)}</text>`)}
      ${line && html`<line class="level" x1=${LEFT} x2=${WIDTH - 8} y1=${y(line.value)} y2=${y(line.value)} />`}
      ${series.map((one) => drawn(one, x, y))}
    </svg>
    <figcaption class="legend soft">
      ${series.map((one) => html`<span><i class="swatch ${one.tone}"></i>${one.name}</span>`)}
      ${line && html`<span><i class="swatch level"></i>${line.name}: ${format(line.value)}</span>`}
    </figcaption>
    <details><summary>As a table</summary><div class="table" tabindex="0" role="region" aria-label="${label}, as a table"><table class="small">
      <thead><tr><th scope="col">From (UTC)</th>${series.map((one) => html`<th scope="col" class="right">${one.name}</th>`)}</tr></thead>
      <tbody>${starts.map((start, at) => series.some((one) => one.points[at].value !== null || one.points[at].note) && html`<tr><td>${moment(start)}</td>
        ${series.map((one) => html`<td class="right">${told(one.points[at], format)}</td>`)}</tr>`)}</tbody>
    </table></div></details>
  </figure>`;
}

function told(point, format) {
  if (point.value === null) return point.note || "–";
  const interval = point.low === null ? "" : ` (${format(point.low)} to ${format(point.high)})`;
  return `${format(point.value)}${interval}`;
}

/** Stretches without a gap. */
function runs(points) {
  const found = [];
  points.forEach((point, at) => {
    if (point.value === null) return;
    const before = found.at(-1);
    if (before && before.at(-1).at === at - 1) before.push({ ...point, at });
    else found.push([{ ...point, at }]);
  });
  return found;
}

function drawn(one, x, y) {
  return html`<g class="series ${one.tone}">
    ${runs(one.points).map((run) => {
      const has = run.filter((p) => p.low !== null && p.high !== null);
      const edge = [...has.map((p) => `${x(p.at)},${y(p.high)}`), ...has.toReversed().map((p) => `${x(p.at)},${y(p.low)}`)];
      return html`<g>
        ${one.band && has.length > 1 && html`<polygon class="area" points=${edge.join(" ")} />`}
        ${(!one.band || has.length === 1) && has.map((p) => html`<line class="whisker" x1=${x(p.at)} x2=${x(p.at)} y1=${y(p.low)} y2=${y(p.high)} />`)}
        ${one.band && run.length > 1 && html`<polyline class="stroke" points=${run.map((p) => `${x(p.at)},${y(p.value)}`).join(" ")} />`}
        ${run.map((p) => html`<circle class="point" cx=${x(p.at)} cy=${y(p.value)} r=${one.band && run.length > 1 ? 2 : 3.5}><title>${moment(p.start)} UTC, ${one.name}: ${told(p, String)}</title></circle>`)}
      </g>`;
    })}
  </g>`;
}
