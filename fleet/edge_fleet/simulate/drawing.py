"""Counts of windows, drawn from a bundle's profile. Pure.

Guards: what is drawn adds up as a device's counts do, so that nothing refuses it. A drifted
feature's values are the reference's moved by so many standard deviations; outputs stay as they
were, since no model runs here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.profile import NUMBER_SPECIALS, Monitor, Profile

_DRIFT = re.compile(
    r"(?P<feature>.+)=(?P<sigmas>[+-]?\d+(\.\d+)?)sigma@(?P<share>\d+(\.\d+)?)(?P<percent>%?)"
)
_ADVICE = "Write FEATURE=+1sigma@0.2 or FEATURE=-0.5sigma@20%: moved on a fifth of the devices."


@dataclass(frozen=True)
class Drift:
    """A feature that has moved by ``sigmas`` of its reference on a ``share`` of the devices."""

    feature: str
    sigmas: float
    share: float


def drift_of(text: str) -> Drift:
    """``FEATURE=+1sigma@SHARE``. Raises InputFault."""
    found = _DRIFT.fullmatch(text)
    if found is None:
        raise InputFault(f"--drift {text!r} is none", advice=_ADVICE)
    share = float(found["share"]) / (100 if found["percent"] else 1)
    if not 0 < share <= 1:
        raise InputFault(f"--drift {text!r}: a share is above 0 and at most 1", advice=_ADVICE)
    return Drift(found["feature"], float(found["sigmas"]), share)


class Drawer:
    """Draws windows of one profile, some of them with drift.

    Raises InputFault when a feature that is to move is not monitored as a number.
    """

    def __init__(self, profile: Profile, drifts: Sequence[Drift] = ()) -> None:
        self._quiet = [_shares(monitor) for monitor in profile.monitors]
        self._moved = []
        for drift in drifts:
            at = _index(profile, drift.feature)
            self._moved.append((at, moved(profile.monitors[at], drift.sigmas)))

    def counts(
        self, rows: int, drifted: NDArray[np.bool_], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Counts (windows, cells) of ``rows`` rows each; ``drifted``: (windows, drifts)."""
        windows = len(drifted)
        parts = [rng.multinomial(rows, quiet, size=windows) for quiet in self._quiet]
        for which, (at, shares) in enumerate(self._moved):
            ours = drifted[:, which]
            parts[at][ours] = rng.multinomial(rows, shares, size=int(ours.sum()))
        empty = np.zeros((windows, 0), dtype=np.int64)
        return np.concatenate([empty, *parts], axis=1, dtype=np.int64)


def moved(monitor: Monitor, sigmas: float) -> NDArray[np.float64]:
    """The shares (cells,) of a number whose values all moved by ``sigmas`` standard deviations.

    Within a bin values are taken as spread evenly; a lattice's values move to the nearest one.
    """
    shares = _shares(monitor)
    edges = np.asarray(monitor.edges)
    shift = sigmas * monitor.std
    out = np.zeros_like(shares)
    regular = monitor.regular
    out[regular:] = shares[regular:]
    if monitor.kind == "lattice":
        target = edges + shift
        nearest = np.abs(target[:, None] - edges[None, :]).argmin(axis=1)
        np.add.at(out, nearest, shares[:regular])
        return out
    below = np.concatenate([[0.0], np.cumsum(shares[:regular])])
    reached = np.interp(edges - shift, edges, below)
    out[:regular] = np.diff(reached)
    out[regular + NUMBER_SPECIALS.index("under")] += reached[0]
    out[regular + NUMBER_SPECIALS.index("over")] += below[-1] - reached[-1]
    return out


def _shares(monitor: Monitor) -> NDArray[np.float64]:
    counts = np.asarray(monitor.counts, dtype=np.float64)
    if not counts.sum():
        counts[monitor.regular + monitor.specials.index("missing")] = 1.0
    return np.asarray(counts / counts.sum())


def _index(profile: Profile, feature: str) -> int:
    for at, monitor in enumerate(profile.monitors):
        if (monitor.source, monitor.name) == ("feature", feature):
            if monitor.kind not in ("quantile", "lattice"):
                raise InputFault(f"feature {feature!r} is no number: it cannot move by sigmas")
            return at
    known = ", ".join(one.name for one in profile.monitors if one.source == "feature")
    raise InputFault(f"the bundle monitors no feature {feature!r}", advice=f"It has {known}.")
