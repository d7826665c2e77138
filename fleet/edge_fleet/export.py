"""What devices counted, as a table to hand out: by day of UTC and version, no figure of few rows.

Guards: a line is of at least ``k`` rows or of none (``disclosure``). A table is by device or of all
devices together, never both, and has no totals beside its lines; days are whole and do not overlap,
so that two exports differ by days, not by an hour in which one person used the machine. Pure but
for reading the store.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.telemetry import Record
from edge_fleet import disclosure, kept
from edge_fleet.drift import explain as explanations
from edge_fleet.library import Known, Library
from edge_fleet.spreadsheet import plain
from edge_fleet.store.base import Store

DAY_MS = 86_400_000


class Line(Struct, frozen=True):
    """Rows of one day in one part of a monitor's cells.

    Attributes:
        day: of UTC, as 2026-11-21. device: "" where it is of all devices together.
        cells: names of the first and the last cell that it holds, or of all where they have no
            order; lower, upper: bounds of the values, where it is of numbers and nothing else.
        rows: how many. reference_share: of the training rows in the same cells.
    """

    day: str
    device: str
    model: str
    version: str
    bundle: str
    source: str
    feature: str
    kind: str
    cells: str
    lower: float | None
    upper: float | None
    rows: int
    reference_share: float


class Exported(Struct, frozen=True):
    """The lines, and what was left out: tables of fewer than ``k`` rows, by day and stream."""

    k: int
    first_day: str
    last_day: str
    lines: tuple[Line, ...]
    withheld: int


def counts(
    store: Store,
    now_ms: int,
    *,
    days: int,
    k: int = disclosure.K,
    by_device: bool = False,
    today: bool = False,
    model: str = "",
) -> Exported:
    """The last ``days`` whole days, with ``today`` what there is of this one as well.

    Raises InputFault when no window of a known profile lies in them.
    """
    until = now_ms // DAY_MS + int(today)
    since = until - days - int(today)
    sums = _sums(store, since, until, by_device=by_device, model=model)
    lines: list[Line] = []
    withheld = 0
    for (day, _, device), (known, counted) in sorted(sums.items(), key=lambda item: item[0]):
        rows = int(counted[: known.profile.monitors[0].cells].sum())
        if rows < k:
            withheld += 1
        else:
            lines += _lines(known, counted, _date(day), device, k)
    if not sums:
        raise InputFault(
            f"no window lies in {_date(since)} to {_date(until - 1)} (UTC)"
            + (f" of model {model!r}" if model else ""),
            advice="More days: --days; --today takes the day that is under way.",
        )
    return Exported(k, _date(since), _date(until - 1), tuple(lines), withheld)


_Key = tuple[int, str, str]
"""Day, bundle, device ("" for all)."""
_Sums = dict[_Key, tuple[Known, NDArray[np.int64]]]


def _sums(store: Store, since: int, until: int, *, by_device: bool, model: str) -> _Sums:
    library = Library()
    sums: _Sums = {}
    with store.reading() as tx:
        bundles = sorted({d.bundle for d in tx.all_detectors() if not model or d.model == model})
        for bundle in bundles:
            known = library.find(tx, bundle)
            if known is None or not known.profile.monitors:
                continue
            for batch in kept.batches(tx, known, since * DAY_MS):
                for at, one in enumerate(batch.kept):
                    day, vector = _day(batch.records[at], one.received_ms), batch.counts[at]
                    if since <= day < until:
                        key = day, bundle, one.device if by_device else ""
                        sums[key] = known, (sums[key][1] + vector if key in sums else vector)
    return sums


def _day(record: Record, received_ms: int) -> int:
    """When the window began, by the device's clock where that can be trusted, else when it came."""
    trusted = record.synchronised and record.start_ms <= received_ms
    return (record.start_ms if trusted else received_ms) // DAY_MS


def _lines(
    known: Known, counted: NDArray[np.int64], day: str, device: str, k: int
) -> Iterator[Line]:
    profile = known.profile
    for monitor, at in zip(profile.monitors, profile.offsets(), strict=True):
        names = explanations.cell_names(monitor, known.labels)
        own = counted[at : at + monitor.cells]
        for part in disclosure.parts(monitor, own, k):
            yield Line(
                day=day,
                device=device,
                model=known.manifest.name,
                version=known.manifest.version,
                bundle=known.bundle,
                source=monitor.source,
                feature=monitor.name,
                kind=monitor.kind,
                cells=disclosure.name_of(part, names),
                lower=disclosure.bounds(monitor, part)[0],
                upper=disclosure.bounds(monitor, part)[1],
                rows=part.rows,
                reference_share=round(
                    sum(monitor.counts[cell] for cell in part.cells) / max(profile.rows, 1), 6
                ),
            )


def _date(day: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).strftime("%Y-%m-%d")


def as_csv(exported: Exported) -> str:
    """A header and the lines; no text is a formula to a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Line.__struct_fields__)
    for line in exported.lines:
        values = msgspec.structs.astuple(line)
        writer.writerow([plain(value) if isinstance(value, str) else value for value in values])
    return text.getvalue()


def as_json(exported: Exported) -> str:
    """All of it, one object."""
    return msgspec.json.format(msgspec.json.encode(exported), indent=1).decode() + "\n"


def as_columns(exported: Exported) -> dict[str, list[object]]:
    """The lines column by column, for Parquet."""
    return {name: [getattr(x, name) for x in exported.lines] for name in Line.__struct_fields__}
