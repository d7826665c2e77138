"""Does the new version answer otherwise, or worse, than it may? Pure.

Guards: a device is one outcome, taken once, from its first rows on the version: rows of one device
are alike, so that a single odd device, or a chatty one, never decides; the controls are devices
that run another version in the same time, so that a world that changes for all is no fault of the
version, and both sides have the same shares of each hardware and site (``matching``), so that it is
no fault of the version to whom it came first. What cannot be judged is said, and is no pass.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fleet.quality import cbpe
from edge_fleet.rollouts import comparing, matching
from edge_fleet.rollouts.comparing import Outcomes
from edge_fleet.rollouts.matching import ALL
from edge_fleet.rollouts.tallies import Arms, Grounds, Tally

Floats = NDArray[np.float64]

BLOCK_ROWS = 200
"""The first so many rows of a device are its outcome."""
DEVICES_MIN = 8
"""With fewer, no score distribution however odd could be told from chance."""
PLACES = 10
"""Of scores, so many steps are compared."""
CALIBRATION_LEVEL = 0.99
SEED = 38
"""The calibration's interval is drawn; the same counts give the same one."""


@dataclass(frozen=True)
class Judged:
    """Evidence (log), or why there is none.

    ``value``: the largest change of a share, or of the mean; ``interval``: of the mean difference,
    new less old, at every look at once. ``devices``: of the new version; ``controls``: beside them,
    both without those of a hardware or site that the other side lacks.
    """

    log_e: float = 0.0
    value: float | None = None
    interval: tuple[float, float] | None = None
    devices: int = 0
    controls: int = 0
    cannot: str = ""


def shifted(arms: Arms, limit: float) -> Judged:
    """Is a share of answers, or of scores above a place, changed by more than ``limit``?

    The shares are those of each label and, from each of ``PLACES`` steps on, of the scores.
    Of all of them the mean evidence decides.
    """
    grounds, (new, old) = dict(arms.grounds), _sides(arms)
    fresh = grounds.get(arms.bundle)
    why = _few(new, old) or _unlike(fresh, [grounds.get(tally.bundle) for tally in old.tallies])
    if why or fresh is None or fresh.monitor is None:
        return Judged(devices=new.size, controls=old.size, cannot=why or "it says no scores")
    edges = np.asarray(fresh.monitor.edges)
    mine = np.stack([_shares(tally, fresh, edges) for tally in new.tallies])
    theirs = np.stack([_shares(tally, grounds[tally.bundle], edges) for tally in old.tallies])
    found = []
    for one, other in zip(mine.T, theirs.T, strict=True):
        for a, b in ((one, other), (1 - one, 1 - other)):
            found.append(
                comparing.worse(
                    comparing.outcomes(a, new.weights), comparing.outcomes(b, old.weights),
                    comparing.more_by(limit),
                )
            )  # fmt: skip
    means = (np.average(a, 0, b) for a, b in ((mine, new.weights), (theirs, old.weights)))
    change = np.abs(next(means) - next(means)).max()
    return Judged(comparing.united(found), float(change), None, new.size, old.size)


def less_right(arms: Arms, limit: float, alpha: float) -> Judged:
    """Is the accuracy that the scores promise lower by more than ``limit``?

    Each device's first rows through its bundle's calibration (``quality.cbpe``). By how much the
    two calibrations may be off themselves is granted besides: they are the same for all devices.
    """
    grounds, (new, old) = dict(arms.grounds), _sides(arms)
    why = _few(new, old)
    promised: dict[str, tuple[cbpe.Calibration, float]] = {}
    every = [*new.tallies, *old.tallies]
    for tally in [] if why else every:
        if tally.bundle not in promised and not why:
            found = _promise(grounds.get(tally.bundle), _sum(tally.bundle, every))
            if isinstance(found, str):
                why = found
            else:
                promised[tally.bundle] = found
    if why:
        return Judged(devices=new.size, controls=old.size, cannot=why)
    mine, theirs = (_wrong(side, grounds, promised) for side in (new, old))
    margin = max(promised[tally.bundle][1] for tally in new.tallies)
    margin += max(promised[tally.bundle][1] for tally in old.tallies)
    low, high = comparing.interval(mine, theirs, alpha)
    return Judged(
        log_e=comparing.worse(mine, theirs, comparing.more_by(limit + margin)),
        value=(mine.mean or 0.0) - (theirs.mean or 0.0),
        interval=(max(low - margin, -1.0), min(high + margin, 1.0)),
        devices=new.size,
        controls=old.size,
    )


Rows = tuple[float, float]
"""Some, of all."""


def counted_worse(new: Rows, old: Rows, limit: float, alpha: float) -> Judged:
    """Rows: ``some`` of ``all`` of the new version against the old one's, at the same time."""
    mine, theirs = comparing.counted(*new), comparing.counted(*old)
    value = None
    if mine.mean is not None and theirs.mean is not None:
        value = mine.mean - theirs.mean
    return Judged(
        log_e=comparing.worse(mine, theirs, comparing.more_by(limit)),
        value=value,
        interval=comparing.interval(mine, theirs, alpha),
        devices=int(new[1]),
        controls=int(old[1]),
    )


@dataclass(frozen=True)
class _Side:
    """Devices on the version, or on others, with what each weighs; ``alone``: those left out."""

    tallies: list[Tally]
    weights: Floats
    alone: int

    @property
    def size(self) -> int:
        return len(self.tallies)


def _sides(arms: Arms) -> tuple[_Side, _Side]:
    """Those with rows enough that have their like on the other side."""
    both = [
        {d: tally for d, tally in some.items() if tally.scores is not None}
        for some in (arms.new, arms.others)
    ]
    kinds = [[arms.strata.get(d, ALL) for d in some] for some in both]
    sides = []
    for some, of, weights in zip(both, kinds, matching.weights(*map(Counter, kinds)), strict=True):
        like = [
            (t, weights[kind]) for t, kind in zip(some.values(), of, strict=True) if kind in weights
        ]
        sides.append(
            _Side([t for t, _ in like], np.array([w for _, w in like]), len(some) - len(like))
        )
    return sides[0], sides[1]


def _few(new: _Side, old: _Side) -> str:
    if min(new.size, old.size) >= DEVICES_MIN:
        return ""
    said = (
        f"{new.size + new.alone} devices on the version and {old.size + old.alone} on others have"
        f" {BLOCK_ROWS} rows, {DEVICES_MIN} of each are needed"
    )
    like = f"; {new.size} and {old.size} of them have the hardware and site of one there"
    return said + (like if new.alone and old.alone else "")


def _unlike(fresh: Grounds | None, others: list[Grounds | None]) -> str:
    """Why two versions' answers cannot be laid side by side; "" where they can."""
    if fresh is None or fresh.monitor is None:
        return "the version's output is not counted"
    for other in others:
        if other is None or other.monitor is None:
            return "the other version's output is not counted"
        if (other.monitor.kind, other.labels) != (fresh.monitor.kind, fresh.labels):
            return "the versions give other labels, or answers of another kind"
    if fresh.monitor.kind not in ("score", "quantile"):
        return f"answers counted by {fresh.monitor.kind} have no order"
    return ""


def _shares(tally: Tally, grounds: Grounds, edges: Floats) -> Floats:
    """Of each label but the first, then of scores (or values) from each step on."""
    monitor = grounds.monitor
    assert monitor is not None and tally.scores is not None
    if monitor.kind == "score":
        cells = cbpe.scores_of(monitor, tally.scores)
        total = max(cells.sum(), 1.0)
        by_label, by_bin = cells.sum(axis=1)[1:] / total, cells.sum(axis=0) / total
        own = np.asarray(monitor.edges)
        places = np.linspace(edges[0], edges[-1], PLACES + 1)[1:-1]
        return np.concatenate([by_label, _from(by_bin, own, places)])
    shares = tally.scores / max(tally.scores.sum(), 1)
    at = np.unique(np.linspace(1, len(edges) - 2, PLACES - 1).astype(int))
    beyond = shares[monitor.regular + monitor.specials.index("over")]
    inside = _from(shares[: monitor.regular], np.asarray(monitor.edges), edges[at])
    return np.asarray(np.clip(inside + beyond, 0.0, 1.0))


def _from(shares: Floats, edges: Floats, places: Floats) -> Floats:
    """The share from each place on; within a bin rows lie evenly."""
    up_to = np.interp(places, edges, np.concatenate([[0.0], np.cumsum(shares)]))
    return np.asarray(np.clip(shares.sum() - up_to, 0.0, 1.0))


def _sum(bundle: str, some: list[Tally]) -> NDArray[np.int64]:
    found = [tally.scores for tally in some if tally.bundle == bundle and tally.scores is not None]
    return np.asarray(np.sum(found, axis=0, dtype=np.int64), np.int64)


def _promise(
    grounds: Grounds | None, counts: NDArray[np.int64]
) -> tuple[cbpe.Calibration, float] | str:
    """A bundle's calibration and by how much its accuracy may be off; or why there is none."""
    monitor = grounds.monitor if grounds is not None else None
    if monitor is None or monitor.kind != "score":
        return "the model gives no scores"
    built = monitor.labelled_counts()
    calibration = cbpe.from_labelled(monitor, built) if built is not None else None
    if calibration is None or not calibration.measured:
        return (
            f"a bundle holds no {cbpe.REFERENCE_ROWS_MIN} labelled rows to say what its scores are"
            " worth, and an overconfident version would look better than it is"
        )
    rng = np.random.default_rng(SEED)
    found = cbpe.estimate(monitor, counts, calibration, rng, level=CALIBRATION_LEVEL)
    accuracy = next(each for each in found if each.figure == "accuracy")
    if accuracy.value is None or accuracy.low is None:
        return accuracy.refused or "its accuracy has no interval"
    return calibration, accuracy.value - accuracy.low


def _wrong(
    side: _Side, grounds: dict[str, Grounds],
    promised: dict[str, tuple[cbpe.Calibration, float]],
) -> Outcomes:  # fmt: skip
    """The share of wrong answers that each device's scores make likely."""
    found = []
    for tally in side.tallies:
        monitor = grounds[tally.bundle].monitor
        assert monitor is not None and tally.scores is not None
        scores = cbpe.scores_of(monitor, tally.scores)
        figure = float(cbpe.expected(scores, promised[tally.bundle][0].chance)["accuracy"])
        found.append(1 - figure if math.isfinite(figure) else 0.0)
    return comparing.outcomes(np.clip(found, 0.0, 1.0), side.weights)
