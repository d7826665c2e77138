"""What changed in a period, over all devices and features at once, most certain first.

Guards: everything that was tested counts in the false discovery rate, each monitor once; a change
too small to matter is no finding, however many rows show it.

One monitor is several tests; its p-value is the least of theirs times their number (Bonferroni):
numbers and scores take Neyman's smooth test, categories and predicted labels the G-test, and each
special cell (missing, unseen, ...) an exact test of its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_contract.bets import SHARE_TOLERANCE
from edge_contract.profile import Monitor
from edge_fleet.drift import oneshot
from edge_fleet.drift.components import Floats
from edge_fleet.drift.discovery import Method, adjusted

MINIMUM_EFFECT = 0.1
"""In standard deviations, or as Cohen's w: Cohen (1988) calls that small."""


@dataclass(frozen=True)
class Screened:
    """One monitor's tests on all streams. Arrays ``[streams]``; ``test``: the telling one's name.

    ``effect``: of that test: standard deviations, Cohen's w, or a difference of shares.
    """

    p: Floats
    effect: Floats
    test: tuple[str, ...]


def screen(
    monitor: Monitor, counts: NDArray[np.int64], minimum_effect: float = MINIMUM_EFFECT
) -> Screened:
    """Test each stream's counts ``[streams, cells]`` against the monitor's reference."""
    tests = _tests(monitor, counts, minimum_effect)
    p = np.stack([result.p for _, result in tests])
    effect = np.stack([np.broadcast_to(result.effect, p[0].shape) for _, result in tests])
    telling = np.argmin(p, axis=0)
    streams = np.arange(p.shape[1])
    return Screened(
        p=np.minimum(p[telling, streams] * len(tests), 1.0),
        effect=effect[telling, streams],
        test=tuple(tests[at][0] for at in telling.tolist()),
    )


def _tests(
    monitor: Monitor, counts: NDArray[np.int64], minimum_effect: float
) -> list[tuple[str, oneshot.Result]]:
    regular = monitor.regular
    tests = []
    if monitor.kind == "category":
        shares = oneshot.cells(monitor, counts, slice(0, regular + 1))  # other known ones too
        tests.append(("g", oneshot.power_divergence(shares, minimum_effect=minimum_effect)))
    else:
        tests.append(("neyman", oneshot.neyman(monitor, counts, minimum_effect=minimum_effect)))
    if monitor.kind == "score" and monitor.labels > 1:
        labels = _labels(monitor, counts)
        tests.append(("labels", oneshot.power_divergence(labels, minimum_effect=minimum_effect)))
    tolerance = SHARE_TOLERANCE if minimum_effect > 0 else 0.0
    for at, name in enumerate(monitor.specials):
        ranked = name in ("under", "over")  # the smooth test has them among its outermost values
        if name != "other" and not ranked and not (monitor.kind == "quantile" and name == "off"):
            cell = np.array([regular + at])
            tests.append((name, oneshot.share_above(monitor, counts, cell, tolerance=tolerance)))
    return tests


def _labels(monitor: Monitor, counts: NDArray[np.int64]) -> oneshot.Samples:
    """The predicted labels, whatever their score."""
    reference = np.asarray(monitor.counts, dtype=np.float64)[: monitor.regular]
    window = np.asarray(counts, dtype=np.float64)[..., : monitor.regular]
    shape = (monitor.labels, -1)
    return oneshot.Samples(
        reference.reshape(shape).sum(axis=-1),
        window.reshape(*window.shape[:-1], *shape).sum(axis=-1),
        monitor.design_effect,
    )


@dataclass(frozen=True)
class Ranked:
    """One test of all.

    Attributes:
        place: which ``Screened``. stream: which of its streams.
        q: the least false discovery rate at which it is a finding. Others as in ``Screened``.
    """

    place: int
    stream: int
    p: float
    q: float
    effect: float
    test: str


def rank(screened: Sequence[Screened], method: Method = "bh") -> list[Ranked]:
    """Every stream of every monitor, most certain first; the rate is over all of them."""
    places = [(place, stream) for place, one in enumerate(screened) for stream in range(len(one.p))]
    q = adjusted(np.concatenate([one.p for one in screened] or [np.zeros(0)]), method)
    found = [
        Ranked(
            place, stream, float(screened[place].p[stream]), float(q[at]),
            float(screened[place].effect[stream]), screened[place].test[stream],
        )
        for at, (place, stream) in enumerate(places)
    ]  # fmt: skip
    return sorted(found, key=lambda one: (one.q, one.p, -abs(one.effect), one.place, one.stream))
