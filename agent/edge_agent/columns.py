"""One feature's values in a row or in many: checked, and put into their tensor's column.

Guards: see ``edge_agent.inputs``; this is where a value is looked at by itself, so that a
refusal can name its row and feature. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from edge_contract.errors import InputFault
from edge_contract.manifest import Feature, Tensor

SQUARES_MAX = {"float32": 1e76, "float64": 1e300}
"""A sum of squares under this holds no value over the type's range (3.4e38, 1.8e308)."""


class Column(Struct, frozen=True, gc=False):
    """One feature's checked values.

    Attributes:
        values: float64 with NaN where missing, or an object array of text, "" where missing.
        exact: the integers as given, where all were integers: float64 ends at 2^53.
    """

    values: NDArray[Any]
    exact: NDArray[Any] | None = None


def check_types(tensor: Tensor, features: Mapping[str, Feature]) -> None:
    """Raise InputFault when a tensor's type cannot hold one of its features."""
    for name in tensor.features:
        text = features[name].type != "number"
        if text != (tensor.dtype == "string"):
            raise InputFault(
                f"feature {name!r} is a {features[name].type}, its tensor {tensor.name!r} "
                f"holds {tensor.dtype}"
            )


def read(feature: Feature, values: Any, *, numbered: bool) -> Column:
    """The column of ``values``, one a row. Raises InputFault naming the row and the feature."""
    if feature.type != "number":
        return _read_text(feature, values, numbered)
    try:
        array = np.asarray(values)
    except ValueError:  # a list among the values
        array = np.empty(0, dtype=object)
    exact = array if array.dtype.kind in "iu" else None
    if array.dtype.kind not in "fiub" or array.ndim != 1:
        array = _read_each(feature, values, numbered)
    column = array.astype(np.float64)
    if not np.isfinite(column).all():
        _check_missing(feature, column, numbered)
    return Column(column, exact)


def fill(tensor: Tensor, ready: Mapping[str, Column], rows: int, *, numbered: bool) -> NDArray[Any]:
    """The tensor ``[rows, features]``. Raises InputFault for a value that its type can't hold."""
    if tensor.dtype == "string":
        texts = np.empty((rows, len(tensor.features)), dtype=object)
        for i, name in enumerate(tensor.features):
            texts[:, i] = ready[name].values
        return texts
    dtype = np.dtype(tensor.dtype)
    filled = np.empty((rows, len(tensor.features)), dtype=dtype)
    for i, name in enumerate(tensor.features):
        filled[:, i] = _cast(ready[name], dtype, name, numbered)
    return filled


def whole(tensor: Tensor, value: object) -> NDArray[Any]:
    """A tensor that a caller passed whole, in its own type. Raises InputFault."""
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputFault(f"tensor {tensor.name!r} is not a regular array", code="shape") from error
    if len(array.shape) != len(tensor.shape) or any(
        want is not None and want != got
        for want, got in zip(tensor.shape, array.shape, strict=True)
    ):
        wanted = ", ".join("any" if extent is None else str(extent) for extent in tensor.shape)
        raise InputFault(
            f"tensor {tensor.name!r} has shape {list(array.shape)}, expected [{wanted}]",
            code="shape",
        )
    text = array.dtype.kind in "US" or (
        array.dtype.kind == "O" and all(isinstance(item, str) for item in array.ravel().tolist())
    )
    if text != (tensor.dtype == "string") or (not text and array.dtype.kind not in "fiub"):
        raise InputFault(
            f"tensor {tensor.name!r} holds {array.dtype}, expected {tensor.dtype}", code="value"
        )
    if text:
        return array.astype(object)
    return _whole_numbers(tensor, array)


def _whole_numbers(tensor: Tensor, array: NDArray[Any]) -> NDArray[Any]:
    dtype = np.dtype(tensor.dtype)
    if array.dtype == dtype and dtype.kind != "f":
        return array
    finite = np.isfinite(array)
    if array.dtype.kind == "f" and bool(np.isinf(array).any()):
        raise InputFault(f"tensor {tensor.name!r} holds an infinite value", code="value")
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    same = np.isfinite(cast) == finite if dtype.kind == "f" else cast == array
    if not same.all():
        raise InputFault(
            f"tensor {tensor.name!r} holds a value that {tensor.dtype} cannot", code="value"
        )
    return cast


def _read_text(feature: Feature, values: Any, numbered: bool) -> Column:
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    for i, item in enumerate(items):
        if isinstance(item, str):
            if item or feature.missing == "allow" or feature.type == "text":
                items[i] = item.lower() if feature.lower else item
                continue
        elif not _is_missing(item):
            raise InputFault(
                f"{_at(i, numbered)}feature {feature.name!r} is {_shown(item)}, expected text",
                code="value",
            )
        if feature.missing == "refuse":
            raise _missing(feature, i, numbered)
        items[i] = ""
    column = np.empty(len(items), dtype=object)
    column[:] = items
    return Column(column)


def _read_each(feature: Feature, values: Any, numbered: bool) -> NDArray[np.float64]:
    """Values of mixed types, one by one."""
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    numbers = np.empty(len(items))
    for i, item in enumerate(items):
        if _is_missing(item):
            numbers[i] = math.nan
        elif isinstance(item, bool | int | float | np.number | np.bool_):
            try:
                numbers[i] = float(item)
            except OverflowError as error:
                raise InputFault(
                    f"{_at(i, numbered)}feature {feature.name!r} is beyond any float's range",
                    code="value",
                ) from error
        else:
            raise InputFault(
                f"{_at(i, numbered)}feature {feature.name!r} is {_shown(item)}, expected a number",
                code="value",
            )
    return numbers


def _check_missing(feature: Feature, column: NDArray[np.float64], numbered: bool) -> None:
    infinite = np.isinf(column)
    if infinite.any():
        raise InputFault(
            f"{_at(int(infinite.argmax()), numbered)}feature {feature.name!r} is infinite",
            code="value",
        )
    if feature.missing == "refuse":
        raise _missing(feature, int(np.isnan(column).argmax()), numbered)


def _missing(feature: Feature, row: int, numbered: bool) -> InputFault:
    return InputFault(
        f"{_at(row, numbered)}feature {feature.name!r} is missing (NaN, null or empty)",
        advice="The model was built on rows where it is always there: fill it in.",
        code="missing",
    )


def _cast(column: Column, dtype: np.dtype[Any], name: str, numbered: bool) -> NDArray[Any]:
    values = column.values
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = values.astype(dtype)
        wrong = np.isinf(cast)
    else:
        exact = column.exact if column.exact is not None else values
        with np.errstate(invalid="ignore"):
            cast = exact.astype(dtype)
        wrong = (cast != exact) | ~_within(exact, dtype)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputFault(
            f"{_at(row, numbered)}feature {name!r} is {values[row]:g}, which {dtype.name} "
            f"cannot hold",
            code="value",
        )
    return cast


def _within(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    """Whether each value lies in an integer or bool type's range (and is not NaN)."""
    if dtype.kind == "b":
        return np.asarray((values == 0) | (values == 1))
    limits = np.iinfo(dtype)
    if values.dtype.kind == "f":
        # 2^63 - 1 is no float64; its neighbour 2^63 is the first value that is too large.
        return np.asarray((values >= float(limits.min)) & (values < float(limits.max) + 1.0))
    return np.asarray((values >= limits.min) & (values <= limits.max))


def _is_missing(item: object) -> bool:
    """None, NaN, and pandas' NA and NaT by their type's name: pandas is never imported."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(item, float) and math.isnan(item)


def _at(row: int, numbered: bool) -> str:
    return f"row {row}: " if numbered else ""


def _shown(item: object) -> str:
    if isinstance(item, str):
        return f"text {item[:40]!r}"
    return f"a {type(item).__name__}"
