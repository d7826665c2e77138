// A grid of figures as colours: rows by time. One cell at a time is in the order of the Tab key
// (WAI-ARIA Authoring Practices, grid pattern); arrows, Home and End go on from it, and what it
// holds is said in words below the grid.
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { figure, number } from "../parts.js";

const STEPS = [0.03, 0.06, 0.1, 0.17, 0.25, 0.4];

/** 0: nothing beyond chance; 1 to 7, the last from 0.4. */
export function level(value) {
  return value > 0 ? 1 + STEPS.filter((bound) => value >= bound).length : 0;
}

export function moment(iso) {
  return iso.slice(0, 16).replace("T", " ");
}

function words(map, row, at) {
  const when = `${moment(map.starts[at])} UTC`;
  const one = map.features[row];
  const distance = one.distance[at];
  if (distance === null) {
    return `${one.feature}, ${when}: ${number(map.rows[at])} rows, fewer than ${map.rows_min}: not shown`;
  }
  const shift = one.shift[at];
  const beyond = shift > 0 ? `${figure(shift)} beyond chance` : "nothing beyond chance";
  return `${one.feature}, ${when}: ${beyond}, distance ${figure(distance)}, ${number(map.rows[at])} rows`;
}

/** `onPick(row, step)`; step null: the whole row. `picked`: {row, step}. */
export function HeatMap({ map, onPick, picked, label }) {
  const grid = useRef(null);
  const [said, say] = useState("");
  const last = map.starts.length - 1;
  const home = useRef({ row: 0, at: last });
  const scroll = useRef(null);
  useEffect(() => {
    scroll.current.scrollLeft = scroll.current.scrollWidth; // the newest is what one looks for
  }, [map.bundle, map.since_ms]);

  function place(target) {
    const cell = target.closest?.("[data-at]");
    return cell && { row: Number(cell.dataset.row), at: Number(cell.dataset.at) };
  }
  function tell(event) {
    const found = place(event.target);
    if (found) say(words(map, found.row, found.at));
  }
  function go(row, at) {
    const cells = grid.current;
    const find = (r, c) => cells.querySelector(`[data-row="${r}"][data-at="${c}"]`);
    const before = find(home.current.row, home.current.at);
    const next = find(row, at);
    if (!next) return;
    if (before) before.tabIndex = -1;
    next.tabIndex = 0;
    home.current = { row, at };
    next.focus();
  }
  function keyed(event) {
    const found = place(event.target);
    if (!found) return;
    const { row, at } = found;
    const rows = map.features.length - 1;
    const moves = {
      ArrowLeft: [row, Math.max(at - 1, 0)], ArrowRight: [row, Math.min(at + 1, last)],
      ArrowUp: [Math.max(row - 1, 0), at], ArrowDown: [Math.min(row + 1, rows), at],
      Home: [event.ctrlKey ? 0 : row, 0], End: [event.ctrlKey ? rows : row, last],
      PageUp: [0, at], PageDown: [rows, at],
    };
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onPick(row, at);
    } else if (moves[event.key]) {
      event.preventDefault();
      go(...moves[event.key]);
    }
  }
  function clicked(event) {
    const found = place(event.target);
    if (!found) return;
    go(found.row, found.at);
    onPick(found.row, found.at);
  }
  const every = Math.max(1, Math.round(map.starts.length / 7));
  // Ten thousand cells: made once for each answer, whatever is picked or pointed at.
  const rows = useMemo(
    () => map.features.map((one, row) => html`<div role="row" class="heat-row" key=${`${one.source}/${one.feature}`}>
      <div role="rowheader" class="heat-name"><button class="quiet" data-name=${row}
        title="${one.feature}: the whole time">${one.alarms > 0 && html`<i class="dot" role="img" aria-label="${one.alarms} open alarms"></i>`}${one.feature}</button></div>
      ${one.shift.map((value, at) => html`<div
        role="gridcell"
        data-row=${row}
        data-at=${at}
        tabindex=${row === 0 && at === last ? 0 : -1}
        class="heat-cell ${value === null ? "none" : `heat-${level(value)}`}"
        aria-label=${words(map, row, at)}
      ></div>`)}
    </div>`),
    [map],
  );
  useEffect(() => {
    for (const old of grid.current.querySelectorAll(".picked")) old.classList.remove("picked");
    if (!picked) return;
    const at = picked.step === null ? `[data-name="${picked.row}"]` : `[data-row="${picked.row}"][data-at="${picked.step}"]`;
    grid.current.querySelector(at)?.classList.add("picked");
  }, [map, picked?.row, picked?.step]);
  return html`<div class="heat" ref=${scroll}>
      <div
        role="grid"
        ref=${grid}
        aria-label=${label}
        aria-rowcount=${map.features.length}
        aria-colcount=${map.starts.length}
        onKeyDown=${keyed}
        onfocusin=${tell}
        onMouseOver=${tell}
        onClick=${(event) => {
          const name = event.target.closest("[data-name]");
          if (name) onPick(Number(name.dataset.name), null);
          else clicked(event);
        }}
      >${rows}</div>
      <div class="heat-row heat-axis" aria-hidden="true"><div class="heat-name"></div>
        ${map.starts.map((start, at) => html`<div class="heat-tick">${at % every === 0 ? html`<span>${map.step_ms >= 86_400_000 || map.starts.length > 48 ? start.slice(5, 10) : start.slice(11, 16)}</span>` : ""}</div>`)}</div>
    </div>
    <p class="heat-said" role="status">${said || "Point at a cell, or walk the grid with the arrow keys; Enter opens it."}</p>
    <div class="legend soft heat-legend" aria-hidden="true"><span>Beyond chance:</span>
      ${[0, 1, 2, 3, 4, 5, 6, 7].map((one) => html`<span><i class="heat-cell heat-${one}"></i>${one === 0 ? "none" : one === 1 ? "under 0.03" : `from ${STEPS[one - 2]}`}</span>`)}
      <span><i class="heat-cell none"></i>too few rows</span></div>`;
}
