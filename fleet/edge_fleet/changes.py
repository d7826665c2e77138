"""The report of what changed in a period: read from the store, tested, ranked.

Guards: a report only reads; it is looked at once, so its level is a share of false findings in it
and not the promise of the alarms (``edge-fleet drift``), which are watched all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.profile import Monitor
from edge_fleet import disclosure, kept
from edge_fleet.drift import explain as explanations
from edge_fleet.drift import oneshot, ranking
from edge_fleet.drift.discovery import Method
from edge_fleet.drift.explain import CellChange
from edge_fleet.library import Known, Library
from edge_fleet.reports import instant
from edge_fleet.store.base import Store, Transaction

EVERY_DEVICE = "(all devices)"


class Change(Struct, frozen=True):
    """One monitor of one device, or of all that run the version together.

    Attributes:
        q: the least share of false findings at which this is one. p: its own p-value.
        test: which test spoke: ``neyman``, ``g``, ``labels``, or a special cell's name.
        effect: of that test: standard deviations, Cohen's w, or a difference of shares.
        what: in words. rows: counted in the period.
        anderson_darling_p, kolmogorov_smirnov_p: of the same counts, for numbers and scores.
        psi, jensen_shannon: distances over all cells. wasserstein: in the feature's unit.
        bars: each cell's share before and after, in order of values.
    """

    device: str
    model: str
    version: str
    source: str
    feature: str
    q: float
    p: float
    test: str
    effect: float
    what: str
    rows: int
    anderson_darling_p: float | None
    kolmogorov_smirnov_p: float | None
    psi: float
    jensen_shannon: float
    wasserstein: float | None
    bars: tuple[CellChange, ...]


class Report(Struct, frozen=True):
    """Changes at a stated false discovery rate, most certain first; ``tested``: of how many."""

    since: str
    until: str
    false_discovery_rate: float
    method: Method
    minimum_effect: float
    tested: int
    devices: int
    rows: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class _Counted:
    """What devices counted of one bundle: ``counts [streams, cells]``, a stream a name."""

    known: Known
    names: tuple[str, ...]
    counts: NDArray[np.int64]

    def own(self, monitor: int) -> NDArray[np.int64]:
        """The counts of one monitor, ``[streams, cells of it]``."""
        at = self.known.profile.offsets()[monitor]
        return self.counts[:, at : at + self.known.profile.monitors[monitor].cells]


def changes(
    store: Store,
    now_ms: int,
    *,
    period_ms: int,
    rate: float = 0.05,
    method: Method = "bh",
    minimum_effect: float = ranking.MINIMUM_EFFECT,
    model: str = "",
    k: int = 0,
) -> Report:
    """What changed in the last ``period_ms``; of ``model`` only, where one is named.

    ``k``: everything in the report is computed from cells of at least so many rows a device,
    smaller ones merged (``disclosure``), so that it may be handed out.

    Raises InputFault for a model that no device was ever heard of with.
    """
    since_ms = now_ms - period_ms
    with store.reading() as tx:
        heard = {detector.model for detector in tx.all_detectors()}
        if model and model not in heard:
            raise InputFault(
                f"no device was ever heard of with model {model!r}",
                advice=f"There are: {', '.join(sorted(heard)) or 'none yet'}",
            )
        counted = [one for one in _read(tx, since_ms, model, k) if one.known.profile.monitors]
    places = [(one, at) for one in counted for at in range(len(one.known.profile.monitors))]
    screened = [
        ranking.screen(one.known.profile.monitors[at], one.own(at), minimum_effect)
        for one, at in places
    ]
    ranked = ranking.rank(screened, method)
    devices = {name for one in counted for name in one.names if name != EVERY_DEVICE}
    return Report(
        since=instant(since_ms) or "",
        until=instant(now_ms) or "",
        false_discovery_rate=rate,
        method=method,
        minimum_effect=minimum_effect,
        tested=len(ranked),
        devices=len(devices),
        rows=sum(_rows(one) for one in counted),
        changes=tuple(_change(one, *places[one.place]) for one in ranked if one.q <= rate),
    )


def _rows(one: _Counted) -> int:
    """Rows of all its devices; the stream of all of them together comes last."""
    single = one.own(0)[: max(len(one.names) - 1, 1)]
    return int(single.sum())


def _read(tx: Transaction, since_ms: int, model: str, k: int) -> Iterator[_Counted]:
    """The counts of each bundle by device, and of all devices together where there are several."""
    library = Library()
    bundles = sorted({d.bundle for d in tx.all_detectors() if not model or d.model == model})
    for bundle in bundles:
        known = library.find(tx, bundle)
        if known is None:
            continue
        sums = kept.by_device(tx, known, since_ms)
        if k > 1:
            told = {name: disclosure.safe_vector(known.profile, x, k) for name, x in sums.items()}
            sums = {name: counts for name, counts in told.items() if counts.any()}
        names, rows = list(sums), list(sums.values())
        if names:
            if len(names) > 1:
                names, rows = [*names, EVERY_DEVICE], [*rows, np.sum(rows, axis=0)]
            yield _Counted(known, tuple(names), np.stack(rows))


def _change(found: ranking.Ranked, one: _Counted, at: int) -> Change:
    monitor = one.known.profile.monitors[at]
    counts = one.own(at)[found.stream]
    table = one.known.table.monitors[at]
    what = "changed"
    if table.entries:
        entry = explanations.telling_entry(table, (counts @ table.log_e).astype(np.float32))
        what = explanations.explain(
            table, entry, counts, one.known.labels, one.known.profile.projections
        ).text
    ordered = monitor.kind != "category"
    samples = oneshot.cells(monitor, counts)
    return Change(
        device=one.names[found.stream],
        model=one.known.manifest.name,
        version=one.known.manifest.version,
        source=monitor.source,
        feature=monitor.name,
        q=found.q,
        p=found.p,
        test=found.test,
        effect=found.effect,
        what=what,
        rows=int(counts.sum()),
        anderson_darling_p=_p(oneshot.anderson_darling(monitor, counts)) if ordered else None,
        kolmogorov_smirnov_p=_p(oneshot.kolmogorov_smirnov(monitor, counts)) if ordered else None,
        psi=float(oneshot.population_stability(samples)),
        jensen_shannon=float(oneshot.jensen_shannon(samples)),
        wasserstein=float(oneshot.wasserstein(monitor, counts)) if ordered else None,
        bars=_bars(monitor, samples, one.known.labels),
    )


def _p(result: oneshot.Result) -> float:
    return float(result.p)


def _bars(
    monitor: Monitor, samples: oneshot.Samples, labels: tuple[str, ...]
) -> tuple[CellChange, ...]:
    """Regular cells always, special ones where a row is in them."""
    before, after = samples.shares
    names = explanations.cell_names(monitor, labels)
    return tuple(
        CellChange(names[i], round(float(before[i]), 6), round(float(after[i]), 6))
        for i in range(monitor.cells)
        if i < monitor.regular or before[i] or after[i]
    )
