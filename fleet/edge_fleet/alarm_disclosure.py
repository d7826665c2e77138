"""An alarm as it may leave the fleet: no share in it, and no word, is of fewer than ``k`` rows.

Guards: histogram, text and rows of what is told are functions of the merged cells alone
(``disclosure``); where the cells are not known, the alarm says its kind and no figure. That there
is an alarm, of which kind, and how strong its evidence was, is told in any case: it is what the
receiver is asked to act on. Pure.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_contract.profile import Monitor
from edge_fleet import disclosure
from edge_fleet.drift import explain as explanations
from edge_fleet.drift.explain import CELLS_SHOWN, CellChange, Explanation
from edge_fleet.library import Known
from edge_fleet.store.base import Alarm


def disclosed(alarm: Alarm, known: Known | None, k: int) -> Alarm:
    """The alarm with an explanation that may be handed out; itself where ``k`` is 0 or 1.

    ``known``: its bundle, whose bins its histogram is of; None: not known.
    """
    if k <= 1:
        return alarm
    said = explanations.decode(alarm.explanation)
    return replace(alarm, explanation=explanations.encode(safe(said, alarm.monitor, known, k)))


def safe(said: Explanation, at: int, known: Known | None, k: int) -> Explanation:
    """``said`` of the ``at``-th monitor of ``known``, below 0 of labels, computed from parts."""
    if said.rows < k:
        return _bare(said, 0)
    if at < 0:
        return said  # shares of all labels, of which there are enough
    if known is None or at >= len(known.profile.monitors):
        return _bare(said, said.rows)
    monitor = known.profile.monitors[at]
    names = explanations.cell_names(monitor, known.labels)
    counts = _counts(said, monitor, names)
    if counts is None:
        return _bare(said, said.rows)
    parts = disclosure.parts(monitor, counts, k)
    if len(parts) == monitor.cells:
        return said
    if not parts:
        return _bare(said, 0)
    told = [_change(part, monitor, names, said.rows) for part in parts]
    order = sorted(told, key=lambda each: -abs(each.after - each.before))
    return msgspec.structs.replace(
        said,
        text=_text(said, at, known, disclosure.safe_counts(monitor, counts, k)),
        cells=tuple(each for each in order[:CELLS_SHOWN] if each.before != each.after),
        bars=tuple(each for each in told if each.before or each.after),
    )


def _counts(said: Explanation, monitor: Monitor, names: list[str]) -> NDArray[np.int64] | None:
    """Rows in each cell, from the bars; None for a store of before, which kept none.

    Shares are kept to six digits: of more than a million rows a count is good to one in a million.
    """
    if len(said.bars) < monitor.regular:
        return None
    shares = np.zeros(monitor.cells)
    shares[: monitor.regular] = [bar.after for bar in said.bars[: monitor.regular]]
    specials = {name: at for at, name in enumerate(names) if at >= monitor.regular}
    for bar in said.bars[monitor.regular :]:
        if bar.cell not in specials:
            return None
        shares[specials[bar.cell]] = bar.after
    return np.rint(shares * said.rows).astype(np.int64)


def _change(part: disclosure.Part, monitor: Monitor, names: list[str], rows: int) -> CellChange:
    before = sum(monitor.counts[cell] for cell in part.cells) / max(sum(monitor.counts), 1)
    name = disclosure.name_of(part, names)
    return CellChange(name, round(before, 6), round(part.rows / rows, 6))


def _text(said: Explanation, at: int, known: Known, counts: NDArray[np.int64]) -> str:
    """What the merged cells say; the kind alone where they say another thing."""
    table = known.table.monitors[at]
    if table.entries:
        entry = explanations.telling_entry(table, (counts @ table.log_e).astype(np.float32))
        found = explanations.explain(table, entry, counts, known.labels, known.profile.projections)
        if found.kind == said.kind:
            return found.text + _devices(said)
    return said.kind + _devices(said)


def _bare(said: Explanation, rows: int) -> Explanation:
    text = said.kind + _devices(said)
    return msgspec.structs.replace(said, text=text, rows=rows, cells=(), bars=())


def _devices(said: Explanation) -> str:
    return f", on {said.moved} of {said.members} devices" if said.members else ""
