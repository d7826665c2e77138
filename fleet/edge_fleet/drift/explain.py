"""What an alarm means, in words and with the cells before and after.

The detector says that a monitor left its reference; which of its components holds the evidence
says how. Figures come from bins, so they are as fine as the bins are: a median within a bin is
interpolated, a shift beyond the reference's range is "at least".
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_contract.profile import Monitor
from edge_contract.projection import Projection, loadings
from edge_contract.typed import json_decoder
from edge_fleet.drift.components import (
    Component,
    Floats,
    group_probabilities,
    groups_of,
)
from edge_fleet.drift.edetector import MonitorTable

CELLS_SHOWN = 5
DEVICES_SHOWN = 100
SPARK_WIDTH = 12
_BLOCKS = " ▁▂▃▄▅▆▇█"
STUCK_SHARE = 0.95
"""A single value in so many rows, which the reference held in less than half: stuck."""
STUCK_ROWS_MIN = 20

PLAIN_SHARE = 0.5
"""A shift moves spread and tails too; the plainer component tells when it holds this share."""

_SPECIAL_WORDS = {
    "under": "below the reference's range",
    "over": "above the reference's range",
    "off": "between the known values",
    "missing": "missing",
    "infinite": "infinite",
    "other": "rare known categories",
    "unseen": "unseen categories",
}
_DEGREE_WORDS = {
    ("mean", 1): ("mean-up", "mean up"),
    ("mean", -1): ("mean-down", "mean down"),
    ("spread", 1): ("spread-up", "wider spread"),
    ("spread", -1): ("spread-down", "narrower spread"),
    ("skew", 1): ("tail-up", "weight towards the upper tail"),
    ("skew", -1): ("tail-down", "weight towards the lower tail"),
    ("shape", 1): ("shape", "shape changed: more in shoulders and tails"),
    ("shape", -1): ("shape", "shape changed: less in shoulders and tails"),
}

_VALUES = frozenset(kind for kind, _ in _DEGREE_WORDS.values()) | {"out-of-range"}


class CellChange(Struct, frozen=True):
    """One cell's share of the rows, in the reference and since the change."""

    cell: str
    before: float
    after: float


class DeviceShare(Struct, frozen=True):
    """How much of a group's evidence one device holds, of all that speaks for the change."""

    device: str
    share: float


class Explanation(Struct, frozen=True):
    """What changed.

    Attributes:
        kind: ``mean-up``, ``missing``, ``category``, ``stuck``, ... for a program.
        text: the same for a person.
        rows: rows seen since the change began.
        cells: the cells that changed most, largest first.
        bars: before and after in every ordinary cell, in order of values, and in each special one
            that holds a row; none from a store of before.
        members, devices: of a group: how many devices it had, and those whose rows speak for the
            change, the clearest first, at most ``DEVICES_SHOWN``; ``moved``: how many those are.
    """

    kind: str
    text: str
    rows: Annotated[int, Meta(ge=0)]
    cells: tuple[CellChange, ...]
    bars: tuple[CellChange, ...] = ()
    members: int = 0
    moved: int = 0
    devices: tuple[DeviceShare, ...] = ()


_ENCODER = msgspec.json.Encoder()
_DECODER = json_decoder(Explanation)


def encode(explanation: Explanation) -> bytes:
    """JSON for the store."""
    return _ENCODER.encode(explanation)


def decode(data: bytes) -> Explanation:
    """Back from the store. Raises msgspec.DecodeError."""
    return _DECODER.decode(data)


def explain(
    table: MonitorTable,
    entry: int,
    counts: NDArray[np.int64],
    labels: tuple[str, ...] = (),
    projections: Sequence[Projection] = (),
) -> Explanation:
    """Say what entry ``entry`` of ``table`` holds evidence of.

    Args:
        counts: rows since the change, ``[cells]`` of the monitor.
        labels: the model's labels as text, for a monitor of its scores.
        projections: the profile's, for a monitor of a direction.
    """
    monitor = table.monitor
    names = cell_names(monitor, labels)
    rows = int(counts.sum())
    before = np.asarray(monitor.counts) / max(sum(monitor.counts), 1)
    after = counts / max(rows, 1)
    bet = table.entries[entry]
    component = table.components[bet.component]
    if component.degree:
        kind, text = _how_it_moved(component, bet.sign, monitor, after)
    else:
        kind, text = _whose_share(component, monitor, before, after, labels)
    if monitor.source == "projection":
        kind, text = _along(monitor, component, kind, text, projections)
    stuck = _stuck(monitor, before, after, rows, names)
    if stuck:
        kind, text = "stuck", stuck
    order = np.argsort(-np.abs(after - before), kind="stable")[:CELLS_SHOWN]
    every = [
        CellChange(name, round(float(was), 6), round(float(now), 6))
        for name, was, now in zip(names, before, after, strict=True)
    ]
    cells = tuple(every[i] for i in order if before[i] != after[i])
    bars = tuple(bar for i, bar in enumerate(every) if i < monitor.regular or before[i] or after[i])
    return Explanation(kind, text, rows, cells, bars)


def of_group(explanation: Explanation, names: Sequence[str], evidence: Floats) -> Explanation:
    """The same of many devices: how many of them speak for the change, and which.

    Args:
        evidence: log evidence of each of ``names``; above 0 speaks for the change.
    """
    order = [at for at in np.argsort(-evidence, kind="stable").tolist() if evidence[at] > 0]
    total = float(evidence[order].sum()) or 1.0
    devices = tuple(DeviceShare(names[at], round(float(evidence[at]) / total, 4)) for at in order)
    return msgspec.structs.replace(
        explanation,
        text=f"{explanation.text}, on {len(order)} of {len(names)} devices",
        members=len(names),
        moved=len(order),
        devices=devices[:DEVICES_SHOWN],
    )


def family(kind: str) -> str:
    """What kinds of alarms one event may show as: moved values are one, and each other its own."""
    return "values" if kind in _VALUES else kind


def sparkline(bars: Sequence[CellChange], *, after: bool, width: int = SPARK_WIDTH) -> str:
    """Shares as a row of block characters, at most ``width``; neighbours are added up.

    Both sides of one change are drawn to one scale: the largest of their columns.
    """
    if not bars:
        return ""
    columns = np.linspace(0, len(bars), min(width, len(bars)) + 1).round().astype(np.int64)[:-1]
    sides = [np.array([getattr(bar, side) for bar in bars]) for side in ("before", "after")]
    drawn = [np.add.reduceat(side, columns) for side in sides]
    most = max(float(side.max()) for side in drawn) or 1.0
    heights = np.ceil(drawn[1 if after else 0] / most * (len(_BLOCKS) - 1)).astype(np.int64)
    return "".join(_BLOCKS[height] for height in heights.tolist())


def telling_entry(table: MonitorTable, log_m: NDArray[np.float32]) -> int:
    """The entry that says best what changed, given the evidence ``[entries]`` of a monitor.

    The strongest one; but where that is a polynomial, the lowest degree that holds half as much
    evidence, because "mean up" says more than "wider spread" where both are true.
    """
    strongest = int(np.argmax(log_m))
    if not table.components[table.entries[strongest].component].degree:
        return strongest
    best: dict[int, int] = {}
    for at, entry in enumerate(table.entries):
        degree = table.components[entry.component].degree
        if degree not in best or log_m[at] > log_m[best[degree]]:
            best[degree] = at
    most = float(log_m[strongest])
    enough = min(PLAIN_SHARE * most, most)  # nothing may speak for a change: then most is below 0
    return next(best[d] for d in sorted(best) if d and log_m[best[d]] >= enough)


def cell_names(monitor: Monitor, labels: tuple[str, ...] = ()) -> list[str]:
    """A name for each cell of ``monitor``, for a person."""
    edges = [f"{edge:.4g}" for edge in monitor.edges]
    bins = [f"{low} to {high}" for low, high in pairwise(edges)]
    match monitor.kind:
        case "quantile":
            regular = bins
        case "lattice":
            regular = edges
        case "category":
            regular = list(monitor.categories)
        case "score":
            regular = [
                f"{label_name(label, labels)}, score {interval}"
                for label in range(monitor.labels)
                for interval in bins
            ]
    return [*regular, *monitor.specials]


def label_name(label: int, labels: tuple[str, ...]) -> str:
    """The label's name where it is known, else its number."""
    return labels[label] if label < len(labels) else f"label {label}"


def median_of(monitor: Monitor, counts: NDArray[np.int64]) -> float | None:
    """The median of ordinary values, from bins; None when there is none or it is out of range."""
    regular = monitor.regular
    inside = counts[:regular].astype(np.float64)
    under, over = float(counts[regular]), float(counts[regular + 1])
    half = (inside.sum() + under + over) / 2
    if half == 0 or half < under or half < over:
        return None
    reached = under + np.cumsum(inside)
    at = min(int(np.searchsorted(reached, half)), regular - 1)
    if monitor.kind == "lattice":
        return float(monitor.edges[at])
    low, high = monitor.edges[at], monitor.edges[at + 1]
    within = (half - (reached[at] - inside[at])) / max(inside[at], 1.0)
    return float(low + (high - low) * min(max(within, 0.0), 1.0))


def shift_in_sigmas(monitor: Monitor, after: Floats) -> float:
    """How far the values moved, in standard deviations of the reference, by normal scores."""
    groups = groups_of(monitor)
    ordered = groups >= 0
    probabilities = group_probabilities(monitor)
    ranks = np.cumsum(probabilities) - probabilities / 2
    scores = np.array([NormalDist().inv_cdf(float(rank)) for rank in ranks])
    mean = float(probabilities @ scores)
    spread = float(np.sqrt(probabilities @ (scores - mean) ** 2)) or 1.0
    share = np.bincount(groups[ordered], weights=after[ordered], minlength=len(probabilities))
    total = float(share.sum())
    return (float(share @ scores) / total - mean) / spread if total else 0.0


def _how_it_moved(
    component: Component, sign: int, monitor: Monitor, after: Floats
) -> tuple[str, str]:
    kind, text = _DEGREE_WORDS[component.name, sign]
    if monitor.kind == "score":
        return kind, f"{text} of the score"
    return kind, text + (_moved(monitor, after) if component.name == "mean" else "")


def _whose_share(
    component: Component,
    monitor: Monitor,
    before: Floats,
    after: Floats,
    labels: tuple[str, ...],
) -> tuple[str, str]:
    inside = component.values > 0
    was, now = float(before[inside].sum()), float(after[inside].sum())
    change = f"{_percent(now)} of rows, was {_percent(was)}"
    if component.name == "category":
        return "category", f"category {monitor.categories[component.index]!r}: {change}"
    if component.name == "label":
        return "label", f"predicted {label_name(component.index, labels)}: {change}"
    kind = "out-of-range" if component.name in ("under", "over") else component.name
    return kind, f"{_SPECIAL_WORDS[component.name]}: {change}"


def _along(
    monitor: Monitor, component: Component, kind: str, text: str, projections: Sequence[Projection]
) -> tuple[str, str]:
    """Of a direction: a moved mean is a shift of features together, all else a lost correlation."""
    names = [n for p in projections if monitor.name in p.names for n in loadings(p, monitor.name)]
    together = ", ".join(names) or monitor.name
    if component.name == "mean" or not component.degree:
        return kind, f"{text} along {together}"
    return "correlation", f"correlation of {together} changed: {text} along {monitor.name}"


def _moved(monitor: Monitor, after: Floats) -> str:
    """`` by about 0.5 sigma (median 21.3, was 20.1)``."""
    shift = abs(shift_in_sigmas(monitor, after))
    text = f" by about {shift:.2g} sigma"
    was = median_of(monitor, np.asarray(monitor.counts))
    now = median_of(monitor, np.round(after * 1_000_000).astype(np.int64))
    if was is not None:
        moved = f"{now:.4g}" if now is not None else "out of the reference's range"
        text += f" (median {moved}, was {was:.4g})"
    return text


def _stuck(monitor: Monitor, before: Floats, after: Floats, rows: int, names: list[str]) -> str:
    if monitor.source != "feature" or monitor.kind not in ("quantile", "lattice"):
        return ""
    if rows < STUCK_ROWS_MIN:
        return ""
    at = int(np.argmax(after[: monitor.regular]))
    if after[at] < STUCK_SHARE or before[at] >= 0.5:
        return ""
    return f"stuck at {names[at]}: {_percent(float(after[at]))}, was {_percent(float(before[at]))}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
