"""The profile: the reference distributions of a model's inputs and outputs, in fixed bins.

Cells of one monitor, in order:

    quantile  one a bin [edge i, edge i+1), the last closed; then under, over, off, missing,
              infinite
    lattice   one a value; then under, over, off (between values), missing, infinite
    category  one a category; then other (known, not listed), unseen, missing
    score     one a (predicted label, score bin); then missing

What a monitor looks at is its source: a feature, the model's output, a direction through many
numbers at once (``projection``), or a figure of a whole tensor (``tensor``).

The vectors of all monitors, one after the other, are what a telemetry window counts; the same
profile on both sides makes the counts mean something, so a record names its bundle's digest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from edge_contract import projection as projections
from edge_contract import wire
from edge_contract.errors import InputFault
from edge_contract.projection import Projection
from edge_contract.tensor_figures import Tensor

PROFILE_MAX_BYTES = 16 * 1024**2
BINS_MAX = 32
LATTICE_MAX = 31
CATEGORIES_MAX = 63
SCORE_BINS = 32
LABELLED_CELLS_MAX = 2**14
"""Cells of labelled counts: 22 labels of 32 bins; for more there are never rows enough."""
ERROR_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

NUMBER_SPECIALS = ("under", "over", "off", "missing", "infinite")
CATEGORY_SPECIALS = ("other", "unseen", "missing")
SCORE_SPECIALS = ("missing",)

Kind = Literal["quantile", "lattice", "category", "score"]
Source = Literal["feature", "output", "projection", "tensor"]
Cell = Annotated[int, Meta(ge=0, le=2**53)]


class Errors(Struct, frozen=True, kw_only=True):
    """A regression's errors on labelled reference rows: prediction less truth, in its unit.

    Attributes:
        rows: how many had a label. mean, std: of the errors. absolute: mean absolute error.
        quantiles: of the errors, at ``ERROR_QUANTILES``.
    """

    rows: Annotated[int, Meta(ge=1, le=2**53)]
    mean: float
    std: float
    absolute: float
    quantiles: tuple[float, float, float, float, float]


class Monitor(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is counted of one feature, output, direction or tensor's figure.

    Attributes:
        name: the feature's name, ``prediction`` for an output, ``pc1`` for a direction (of a
            tensor ``TENSOR:pc1``), ``TENSOR:mean`` for a figure of a tensor.
        edges: ascending; bin edges (quantile, score) or the values themselves (lattice).
        categories, others: listed categories, and known ones counted together.
        labels: how many labels a score monitor has.
        counts: the reference rows in this monitor's cells; of a projection those rows that its
            directions were not fitted to, because to the others they fit too well.
        mean, std: of the finite reference values; 0 for categories and scores.
        design_effect: how many times fewer independent rows the reference holds than it
            counts, from time-ordered blocks; 1 when the rows are independent or have no order.
        longest_run: most equal values in a row, in order of time; 0 where there is no order.
        components: names of the polynomials that are watched (``edge_contract.components``);
            (): as many as the counts allow.
        tolerance: least movement that counts, in standard deviations of a component; 0: the
            reader's own. Never below four standard errors of the reference.
        hours, weekdays: mean by hour of the day (24, UTC) and day of the week (7, Monday first)
            where the reference shows such a cycle, else ().
        rows_needed: rows until a component's movement by each of ``Power.shifts`` is found; 0:
            never, however many.
        labelled: of a score monitor: labelled reference rows [true label, predicted label, bin],
            the last index fastest; () without labels.
        errors: of a regression's output, where reference rows had labels.
    """

    name: str
    kind: Kind
    source: Source = "feature"
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    labels: int = 0
    counts: tuple[Cell, ...]
    mean: float = 0.0
    std: float = 0.0
    design_effect: float = 1.0
    longest_run: int = 0
    components: tuple[str, ...] = ()
    tolerance: float = 0.0
    hours: tuple[float, ...] = ()
    weekdays: tuple[float, ...] = ()
    rows_needed: tuple[float, ...] = ()
    labelled: tuple[Cell, ...] = ()
    errors: Errors | None = None

    @property
    def missing_rate(self) -> float:
        """Share of the reference rows without a value; NaN without rows."""
        total = sum(self.counts)
        at = self.regular + self.specials.index("missing")
        return self.counts[at] / total if total else math.nan

    def labelled_counts(self) -> NDArray[np.int64] | None:
        """``labelled`` as ``[true label, predicted label, bin]``; None without labels."""
        if not self.labelled:
            return None
        shape = (self.labels, self.labels, len(self.edges) - 1)
        return np.asarray(self.labelled, dtype=np.int64).reshape(shape)

    @property
    def regular(self) -> int:
        """How many cells hold ordinary values."""
        match self.kind:
            case "quantile":
                return len(self.edges) - 1
            case "lattice":
                return len(self.edges)
            case "category":
                return len(self.categories)
            case "score":
                return self.labels * (len(self.edges) - 1)

    @property
    def specials(self) -> tuple[str, ...]:
        """Names of the cells behind the regular ones."""
        match self.kind:
            case "quantile" | "lattice":
                return NUMBER_SPECIALS
            case "category":
                return CATEGORY_SPECIALS
            case "score":
                return SCORE_SPECIALS

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return self.regular + len(self.specials)


class Power(Struct, frozen=True, kw_only=True):
    """What the drift detector was reckoned to find, and under which promise.

    Attributes:
        shifts: movements of a component, in standard deviations; ``Monitor.rows_needed`` has one
            figure for each.
        log_threshold: natural logarithm of the evidence at which the reckoning lets it alarm.
        rows_per_hour: what the user declared that a device answers; 0: nothing was declared.
    """

    shifts: tuple[float, ...]
    log_threshold: float
    rows_per_hour: float = 0.0


class Profile(Struct, frozen=True, kw_only=True):
    """The reference of one bundle.

    Attributes:
        rows: how many reference rows were counted.
        time_ordered: they had an order in time, so that the design effects mean something.
        projections, tensors: what the monitors of those sources look at.
        power: None where nothing was reckoned.
        refused: names of what is not monitored, because it could not work at the declared rate.
    """

    schema: int = 1
    rows: Annotated[int, Meta(ge=0, le=2**53)]
    time_ordered: bool = False
    monitors: tuple[Monitor, ...]
    projections: tuple[Projection, ...] = ()
    tensors: tuple[Tensor, ...] = ()
    power: Power | None = None
    refused: tuple[str, ...] = ()

    @property
    def cells(self) -> int:
        """Length of a window's count vector."""
        return sum(monitor.cells for monitor in self.monitors)

    def offsets(self) -> tuple[int, ...]:
        """Where each monitor's cells begin in the count vector."""
        starts, at = [], 0
        for monitor in self.monitors:
            starts.append(at)
            at += monitor.cells
        return tuple(starts)


def encode(profile: Profile) -> bytes:
    """The member ``profile.json``."""
    return wire.encode_json(profile)


def decode(data: bytes) -> Profile:
    """A profile, consistent in itself. Raises InputFault, and nothing else."""
    profile = wire.decode_json(data, Profile, size_max=PROFILE_MAX_BYTES)
    names = [(monitor.source, monitor.name) for monitor in profile.monitors]
    if len(set(names)) != len(names):
        raise InputFault("the profile monitors one thing twice")
    for monitor in profile.monitors:
        _check(monitor, profile.rows)
        _check_labels(monitor)
    _check_sources(profile)
    return profile


def _check_sources(profile: Profile) -> None:
    """Every direction and figure that is monitored is declared, once."""
    for one in profile.projections:
        projections.check(one)
    declared = {
        "projection": [name for one in profile.projections for name in one.names],
        "tensor": [name for tensor in profile.tensors for name in tensor.names],
    }
    for source, names in declared.items():
        if len(set(names)) != len(names):
            raise InputFault(f"the profile declares a {source} twice")
        monitors = [each for each in profile.monitors if each.source == source]
        unknown = {each.name for each in monitors}.difference(names)
        if unknown or any(each.kind not in ("quantile", "lattice") for each in monitors):
            raise InputFault(f"the profile monitors a {source} that it does not declare")


def _check_labels(monitor: Monitor) -> None:
    """Labelled counts are those of a score monitor, and no more than its rows."""
    counts = monitor.labelled
    if not counts:
        return
    cells = monitor.labels * monitor.regular if monitor.kind == "score" else 0
    if len(counts) != cells or cells > LABELLED_CELLS_MAX:
        raise InputFault(f"monitor {monitor.name!r} has {len(counts)} labelled counts for {cells}")
    by_cell = np.asarray(counts, dtype=np.int64).reshape(monitor.labels, -1).sum(axis=0)
    if (by_cell > np.asarray(monitor.counts[: monitor.regular])).any():
        raise InputFault(f"monitor {monitor.name!r} has more labelled rows than rows")


def _check(monitor: Monitor, rows: int) -> None:
    ascending = all(low < high for low, high in zip(monitor.edges, monitor.edges[1:], strict=False))
    if not ascending or monitor.design_effect < 1:
        raise InputFault(f"monitor {monitor.name!r}: edges must ascend, design effect be >= 1")
    needs = {"quantile": 2, "lattice": 1, "category": 0, "score": 2}[monitor.kind]
    if len(monitor.edges) < needs or (monitor.kind == "score" and monitor.labels < 1):
        raise InputFault(f"monitor {monitor.name!r} has too few edges or labels")
    if len(monitor.counts) != monitor.cells:
        raise InputFault(
            f"monitor {monitor.name!r} has {len(monitor.counts)} counts for {monitor.cells} cells"
        )
    if len(monitor.hours) not in (0, 24) or len(monitor.weekdays) not in (0, 7):
        raise InputFault(f"monitor {monitor.name!r} has means of a day without 24 hours or 7 days")
    if not monitor.tolerance >= 0 or monitor.longest_run < 0:
        raise InputFault(f"monitor {monitor.name!r} has a tolerance or a run below 0")
    counted = sum(monitor.counts)
    if counted > rows or (counted != rows and monitor.source != "projection"):
        raise InputFault(f"monitor {monitor.name!r}: its counts do not add up to {rows} rows")


def count_numbers(monitor: Monitor, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts of ``values`` (any number of float64) in the cells of a quantile or lattice."""
    if monitor.kind == "quantile":
        return _count_quantiles(monitor, values)
    edges = np.asarray(monitor.edges)
    regular = monitor.regular
    cells = _nearest(edges, values)
    off = np.abs(values - edges[cells]) > 1e-6 * np.maximum(1.0, np.abs(edges[cells]))
    cells[off] = regular + 2
    cells[values < edges[0] - _slack(edges[0])] = regular
    cells[values > edges[-1] + _slack(edges[-1])] = regular + 1
    cells[np.isnan(values)] = regular + 3
    cells[np.isinf(values)] = regular + 4
    return np.bincount(cells, minlength=monitor.cells)


def _count_quantiles(monitor: Monitor, values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sorting the values and looking the edges up takes half the time of the reverse."""
    edges = np.asarray(monitor.edges)
    ordered = np.sort(values, axis=None)  # NaN comes last
    first = ordered.searchsorted(edges)
    regular = len(edges) - 1
    counts = np.zeros(regular + len(NUMBER_SPECIALS), dtype=np.int64)
    counts[:regular] = first[1:] - first[:-1]
    below, within = int(first[0]), int(first[-1])
    if below or within < len(ordered):
        minus, on_last, plus = ordered.searchsorted((-np.inf, edges[-1], np.inf), "right").tolist()
        finite = int(ordered.searchsorted(np.inf))
        counts[regular - 1] += on_last - within
        counts[regular:] = (
            below - minus, finite - on_last, 0, len(ordered) - plus, minus + plus - finite
        )  # fmt: skip
    return counts


def _slack(edge: float) -> float:
    return 1e-6 * max(1.0, abs(edge))


def _nearest(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the edge nearest to each value."""
    above = np.clip(np.searchsorted(edges, values), 1, max(len(edges) - 1, 1))
    above = np.minimum(above, len(edges) - 1)
    below = np.maximum(above - 1, 0)
    return np.where(values - edges[below] <= edges[above] - values, below, above)


def count_categories(monitor: Monitor, values: Sequence[str | None]) -> NDArray[np.int64]:
    """Counts of ``values`` (None or "": missing) in the cells of a category."""
    where = {name: cell for cell, name in enumerate(monitor.categories)}
    regular = monitor.regular
    where.update(dict.fromkeys(monitor.others, regular))
    counts = np.zeros(monitor.cells, dtype=np.int64)
    for value in values:
        cell = regular + 2 if value is None or value == "" else where.get(value, regular + 1)
        counts[cell] += 1
    return counts


def count_scores(
    monitor: Monitor, labels: NDArray[np.int64], scores: NDArray[Any]
) -> NDArray[np.int64]:
    """Counts of predictions in the cells of a score monitor.

    Args:
        labels: index of the predicted label, one a row.
        scores: the score of that label (for two labels: of the last one), one a row. A monitor
            of one bin counts labels alone, for models without scores: then they are not looked at.
    """
    return np.bincount(score_cells(monitor, labels, scores), minlength=monitor.cells)


def score_cells(
    monitor: Monitor, labels: NDArray[np.int64], scores: NDArray[Any]
) -> NDArray[np.int64]:
    """The cell of each prediction, as ``count_scores`` counts it."""
    edges = np.asarray(monitor.edges)
    bins = len(edges) - 1
    column = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    cells = labels * bins + column
    lacking = ~np.isfinite(scores) if bins > 1 else np.zeros(len(labels), dtype=bool)
    cells[lacking | (labels < 0) | (labels >= monitor.labels)] = monitor.regular
    return cells
