// Figures over time with their intervals, and the same as a table.
import { html, useLayoutEffect, useRef, useState } from "../html.js";
import { figure } from "../parts.js";
import { moment } from "./heatmap.js";

const HEIGHT = 230;
const LEFT = 46;
const FOOT = 22;

/**
 * `series`: [{name, tone, band, points: [{start, value, low, high, note}]}], all of the same starts;
 * value null: none. `band`: draw the interval as an area, else as bars. `line`: {value, name}, a
 * level to compare with. `format`: of a value. `zero`: the scale begins at 0.
 */
export function Band({ series, line, label, zero, format = figure }) {
  const at = useRef(null);
  const [WIDTH, fit] = useState(640);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(([one]) => fit(Math.max(260, Math.round(one.contentRect.width))));
    if (at.current) watch.observe(at.current);
    return () => watch.disconnect();
  }, []);
  const all = series.flatMap((one) => one.points.flatMap((p) => [p.value, p.low, p.high]))
    .concat(line ? [line.value] : []).filter((v) => v !== null && v !== undefined);
  if (!all.length) return null;
  const [low, high, ticks] = scale(zero ? Math.min(0, ...all) : Math.min(...all), Math.max(...all));
  const many = series[0].points.length;
  const x = (at) => LEFT + ((at + 0.5) * (WIDTH - LEFT - 8)) / many;
  const y = (value) => 8 + ((high - value) * (HEIGHT - FOOT - 8)) / (high - low);
  const starts = series[0].points.map((p) => p.start);
  return html`<figure class="band" ref=${at}>
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" height=${HEIGHT} role="img" aria-label=${label}>
      ${ticks.map((value) => html`<g><line class="rule" x1=${LEFT} x2=${WIDTH - 8} y1=${y(value)} y2=${y(value)} />
        <text x=${LEFT - 6} y=${y(value) + 4} text-anchor="end">${format(value)}</text></g>`)}
      ${named(starts, (WIDTH - LEFT - 8) / many).map(([at, text]) => html`<text x=${x(at)} y=${HEIGHT - 6} text-anchor="middle">${text}</text>`)}
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

const HOUR_MS = 3_600_000;
const APART_HOURS = [1, 2, 3, 6, 12, 24, 48, 168, 336, 720];
const NAME_PX = 70;

/**
 * Which places of the axis get a name: each that begins another of the shortest lengths of time
 * whose names have room, so that they stand evenly. `px`: of a place. [[place, name], …].
 */
export function named(starts, px) {
  const times = starts.map((start) => Date.parse(start));
  const step = times.length > 1 ? times[1] - times[0] : HOUR_MS;
  const least = times.length * step > 48 * HOUR_MS ? 24 : 1; // an hour of a week says nothing
  const fits = (hours) => hours >= least && (hours * HOUR_MS * px) / step >= NAME_PX;
  const apart = HOUR_MS * (APART_HOURS.find(fits) ?? APART_HOURS.at(-1));
  const begins = (at) => Math.floor(times[at] / apart) !== Math.floor((at ? times[at - 1] : times[0] - step) / apart);
  const text = (start) => (apart >= 24 * HOUR_MS ? start.slice(5, 10) : start.slice(11, 16));
  const found = starts.flatMap((start, at) => (begins(at) ? [[at, text(start)]] : []));
  return found.length || !starts.length ? found : [[0, text(starts[0])]];
}

/** Round bounds around the values, and the round values between them. */
function scale(least, most) {
  const span = most - least || Math.abs(most) || 1;
  const raw = span / 4;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw);
  const low = Math.floor(least / step) * step;
  const high = Math.max(Math.ceil(most / step) * step, low + step);
  const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, n) => low + n * step);
  return [low, high, ticks];
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
