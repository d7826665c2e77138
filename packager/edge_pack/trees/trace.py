"""Which raw column each column behind a fitted step comes from, where it comes from one alone.

Guards: only steps that are known to work on each column by itself are followed; of any other
nothing is said, and what needs the answer is done without it.

Pure: reads attributes of fitted estimators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

_SAME = (
    "StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler", "PowerTransformer",
    "QuantileTransformer", "Binarizer",
)  # fmt: skip
_ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


@dataclass(frozen=True)
class Origin:
    """Where a column comes from.

    Attributes:
        raw: the raw column.
        known: the categories of the encoder that it went through, or None.
        plain: so far a present value is what it was in the raw column.
    """

    raw: int
    known: tuple[Any, ...] | None = None
    plain: bool = True


def trace(step: Any, given: Sequence[Origin]) -> tuple[Origin, ...] | None:
    """The origins of what a fitted transformer returns; None where it mixes columns.

    Args:
        given: the origins of its input columns.
    """
    if step is None or (isinstance(step, str) and step == "passthrough"):
        return tuple(given)
    name = type(step).__name__
    if not type(step).__module__.startswith("sklearn."):
        return None
    if hasattr(step, "transformers_"):
        return _columns(step, given)
    if hasattr(step, "steps"):
        return _in_turn([each for _, each in step.steps], given)
    if hasattr(step, "transformer_list"):
        return _joined([each for _, each in step.transformer_list], given)
    return _single(step, name, given)


def _single(step: Any, name: str, given: Sequence[Origin]) -> tuple[Origin, ...] | None:
    if _turns_back(getattr(step, "missing_values", None)):
        return None
    if name == "SimpleImputer":
        return _imputed(step, given)
    if name == "MissingIndicator":
        return tuple(_changed(given[i]) for i in step.features_)
    if name in _ENCODERS:
        return _encoded(step, name, given)
    if name == "FunctionTransformer":
        return _function(step, given)
    if hasattr(step, "get_support"):
        return tuple(given[i] for i in np.flatnonzero(step.get_support()).tolist())
    if name in _SAME or (name == "KBinsDiscretizer" and step.encode == "ordinal"):
        return tuple(_changed(each) for each in given)
    return None


def _turns_back(missing: Any) -> bool:
    """Whether a number or a text stands for missing, such as -999 or "?".

    What stands on both sides of that value is treated alike, which no single cut tells apart, and
    no encoder behind has it among its categories.
    """
    return isinstance(missing, str | float | int | np.generic) and bool(missing == missing)  # noqa: PLR0124 (NaN)


def _changed(origin: Origin) -> Origin:
    return replace(origin, plain=False)


def _function(step: Any, given: Sequence[Origin]) -> tuple[Origin, ...] | None:
    """No function at all, or one of numpy's own that takes numbers one by one."""
    if step.func is None:
        return tuple(given)
    if isinstance(step.func, np.ufunc) and step.func.nin == 1 and not step.kw_args:
        return tuple(_changed(each) for each in given)
    return None


def _in_turn(steps: Sequence[Any], given: Sequence[Origin]) -> tuple[Origin, ...] | None:
    found: tuple[Origin, ...] | None = tuple(given)
    for step in steps:
        if found is None:
            return None
        found = trace(step, found)
    return found


def _joined(steps: Sequence[Any], given: Sequence[Origin]) -> tuple[Origin, ...] | None:
    parts: list[Origin] = []
    for step in steps:
        found = () if isinstance(step, str) and step == "drop" else trace(step, given)
        if found is None:
            return None
        parts += found
    return tuple(parts)


def _columns(step: Any, given: Sequence[Origin]) -> tuple[Origin, ...] | None:
    """A ColumnTransformer; ``output_indices_`` says where each part's columns stand."""
    placed: dict[int, Origin] = {}
    names = [str(name) for name in getattr(step, "feature_names_in_", ())]
    for name, inner, picked in step.transformers_:
        if isinstance(inner, str) and inner == "drop":
            continue
        where = [given[i] for i in positions(picked, names, len(given))]
        found = trace(inner, where) if where else ()
        at = step.output_indices_[name]
        if found is None or len(found) != at.stop - at.start:
            return None
        placed.update(zip(range(at.start, at.stop), found, strict=True))
    return tuple(placed[i] for i in sorted(placed))


def positions(picked: Any, names: Sequence[str], width: int) -> list[int]:
    """What a ColumnTransformer's choice of columns means, as positions."""
    if isinstance(picked, str):
        return [list(names).index(picked)]
    if isinstance(picked, slice):
        ends = [
            list(names).index(e) if isinstance(e, str) else e for e in (picked.start, picked.stop)
        ]
        if isinstance(picked.stop, str):
            ends[1] += 1
        return list(range(width))[slice(ends[0], ends[1], picked.step)]
    listed = np.atleast_1d(np.asarray(picked, dtype=object)).tolist()
    if listed and all(isinstance(each, bool | np.bool_) for each in listed):
        return [i for i, chosen in enumerate(listed) if chosen]
    return [
        list(names).index(each) if isinstance(each, str) else int(each) % width for each in listed
    ]


def _imputed(step: Any, given: Sequence[Origin]) -> tuple[Origin, ...]:
    """Columns that were all missing in training are dropped; indicators follow at the end."""
    empty = [isinstance(each, float) and each != each for each in step.statistics_.tolist()]  # noqa: PLR0124
    if getattr(step, "keep_empty_features", False):
        empty = [False] * len(empty)
    kept = [each for each, gone in zip(given, empty, strict=True) if not gone]
    if step.add_indicator:
        kept += [_changed(given[i]) for i in step.indicator_.features_]
    return tuple(kept)


def _encoded(step: Any, name: str, given: Sequence[Origin]) -> tuple[Origin, ...] | None:
    """Each column's categories are those of its raw column, if nothing changed it before."""
    if any(not each.plain or each.known is not None for each in given):
        return None
    widths = [1] * len(given)
    if name == "OneHotEncoder":
        widths = [int(width) for width in step._n_features_outs]
    elif name == "TargetEncoder":
        widths = [len(step.encodings_) // len(given)] * len(given)
    return tuple(
        Origin(each.raw, tuple(known.tolist()), plain=False)
        for each, known, width in zip(given, step.categories_, widths, strict=True)
        for _ in range(width)
    )
