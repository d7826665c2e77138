"""The formulas of steps that stock conversion lacks or loses: each as its fitted step computes it.

Every function takes an ``Emitter`` and the input ``x`` [rows, columns] and gives the output node;
the formula is that of the class of the same name in scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.estimators.emit import Emitter

_EPS = np.finfo(np.float64).eps


def function(func: Any) -> str:
    """The name of a numpy function that ``elementwise`` can write, or ""."""
    name = str(getattr(func, "__name__", ""))
    known = func is None or getattr(np, name, None) is func
    return name if known and name in _FUNCTIONS else ""


_FUNCTIONS: dict[str, Callable[[Emitter, Any], Any]] = {
    "log1p": lambda e, x: e.Log(e.Add(x, e.const([1.0]))),
    "expm1": lambda e, x: e.Sub(e.Exp(x), e.const([1.0])),
    "log": lambda e, x: e.Log(x),
    "log2": lambda e, x: e.Div(e.Log(x), e.const([np.log(2.0)])),
    "log10": lambda e, x: e.Div(e.Log(x), e.const([np.log(10.0)])),
    "exp": lambda e, x: e.Exp(x),
    "exp2": lambda e, x: e.Exp(e.Mul(x, e.const([np.log(2.0)]))),
    "sqrt": lambda e, x: e.Sqrt(x),
    "square": lambda e, x: e.Mul(x, x),
    "reciprocal": lambda e, x: e.Div(e.const([1.0]), x),
    "abs": lambda e, x: e.Abs(x),
    "absolute": lambda e, x: e.Abs(x),
    "negative": lambda e, x: e.Neg(x),
    "sign": lambda e, x: e.Sign(x),
    "sin": lambda e, x: e.Sin(x),
    "cos": lambda e, x: e.Cos(x),
    "tanh": lambda e, x: e.Tanh(x),
    "floor": lambda e, x: e.Floor(x),
    "ceil": lambda e, x: e.Ceil(x),
}
FUNCTIONS = tuple(sorted(f"numpy.{name}" for name in _FUNCTIONS))


def elementwise(e: Emitter, x: Any, func: Any) -> Any:
    """A numpy function that ``function`` knows; None: the values as they are."""
    return x if func is None else _FUNCTIONS[function(func)](e, x)


def power(e: Emitter, x: Any) -> Any:
    """Yeo-Johnson or Box-Cox of each column, then the scaler (scipy.stats.yeojohnson)."""
    lambdas = np.asarray(e.step.lambdas_, dtype=np.float64)
    if e.step.method == "box-cox":
        out = _boxcox(e, e.Log(x), lambdas)
    else:
        up = _boxcox(e, e.Log(e.Add(e.Max(x, e.const([0.0])), e.const([1.0]))), lambdas)
        mirrored = e.Log(e.Sub(e.const([1.0]), e.Min(x, e.const([0.0]))))
        down = e.Neg(_boxcox(e, mirrored, 2 - lambdas))
        out = e.Where(e.Less(x, e.const([0.0])), down, up)
        out = e.Where(e.IsNaN(x), x, out)
    scaler = getattr(e.step, "_scaler", None)
    if not e.step.standardize or scaler is None:
        return out
    return e.Div(e.Sub(out, e.const(scaler.mean_)), e.const(scaler.scale_))


def _boxcox(e: Emitter, logs: Any, lambdas: NDArray[np.float64]) -> Any:
    """(exp(lambda * logs) - 1) / lambda, and ``logs`` where lambda is 0."""
    plain = np.abs(lambdas) < _EPS
    safe = np.where(plain, 1.0, lambdas)
    bent = e.Div(e.Sub(e.Exp(e.Mul(logs, e.const(safe))), e.const([1.0])), e.const(safe))
    return e.Where(plain, logs, bent) if plain.any() else bent


def impute(e: Emitter, x: Any) -> Any:
    """Missing values replaced by the learned statistics; columns that had none are dropped."""
    fills = np.asarray(e.step.statistics_, dtype=np.float64)
    missing = e.step.missing_values
    holes = e.IsNaN(x) if _is_nan(missing) else e.Equal(x, e.const([float(missing)]))
    kept = np.flatnonzero(~np.isnan(fills))
    out = e.Where(holes, e.const(np.where(np.isnan(fills), 0.0, fills)), x)
    if len(kept) < len(fills):
        out = e.Gather(out, kept.astype(np.int64), axis=1)
    indicator = getattr(e.step, "indicator_", None)
    if indicator is None:
        return out
    marked = e.Gather(e.number(holes), indicator.features_.astype(np.int64), axis=1)
    return e.Concat(out, marked, axis=1)


def imputed_width(step: Any, _columns: int) -> int:
    """Columns that ``impute`` gives."""
    kept = int(np.count_nonzero(~np.isnan(np.asarray(step.statistics_, dtype=np.float64))))
    indicator = getattr(step, "indicator_", None)
    return kept + (len(indicator.features_) if indicator is not None else 0)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


def missing(e: Emitter, x: Any) -> Any:
    """1 where a value is missing, for the columns that the step looks at."""
    value = e.step.missing_values
    holes = e.IsNaN(x) if _is_nan(value) else e.Equal(x, e.const([float(value)]))
    return e.Gather(e.number(holes), e.step.features_.astype(np.int64), axis=1)


def polynomial(e: Emitter, x: Any) -> Any:
    """Products of powers: each row of ``powers_`` is one output column."""
    columns = []
    for exponents in np.asarray(e.step.powers_):
        product = None
        for column in np.repeat(np.arange(len(exponents)), exponents):
            factor = e.Gather(x, np.array([column], dtype=np.int64), axis=1)
            product = factor if product is None else e.Mul(product, factor)
        if product is None:
            first = e.Gather(x, np.array([0], dtype=np.int64), axis=1)
            product = e.Add(e.Mul(first, e.const([0.0])), e.const([1.0]))
        columns.append(product)
    return e.Concat(*columns, axis=1)


def bins(e: Emitter, x: Any) -> Any:
    """The bin of each value, as its number or as one column a bin."""
    parts = []
    for column, edges in enumerate(e.step.bin_edges_):
        value = e.Gather(x, np.array([column], dtype=np.int64), axis=1)
        if len(edges) > 2:
            place = _place(e, value, np.asarray(edges)[1:-1])
        else:
            place = e.Mul(value, e.const([0.0]))
        if e.step.encode != "ordinal":
            place = e.number(e.Equal(place, e.const(np.arange(len(edges) - 1)[None, :])))
        parts.append(place)
    return e.Concat(*parts, axis=1) if len(parts) > 1 else parts[0]


def bins_width(step: Any, columns: int) -> int:
    """Columns that ``bins`` gives."""
    return columns if step.encode == "ordinal" else int(np.sum(step.n_bins_))


def _place(e: Emitter, value: Any, edges: NDArray[Any]) -> Any:
    """How many edges are at or below each value [rows, 1]: a number."""
    reached = e.number(e.GreaterOrEqual(value, e.const(edges[None, :])))
    return e.MatMul(reached, e.const(np.ones((len(edges), 1))))


def affine(weights: NDArray[Any], offset: NDArray[Any]) -> Callable[[Emitter, Any], Any]:
    """x @ weights + offset."""
    return lambda e, x: e.Add(e.MatMul(x, e.const(weights)), e.const(np.atleast_2d(offset)))


def centred(e: Emitter, x: Any, centre: Any, weights: NDArray[Any]) -> Any:
    """(x - centre) @ weights."""
    return e.MatMul(e.Sub(x, e.const(centre)), e.const(weights))


def spline(e: Emitter, x: Any) -> Any:
    """B-spline basis of each column as polynomials between the knots."""
    parts = []
    for column, basis in enumerate(e.step.bsplines_):
        value = e.Gather(x, np.array([column], dtype=np.int64), axis=1)
        low, high = basis.t[basis.k], basis.t[-basis.k - 1]
        knots, table = _polynomials(basis, float(low), float(high))
        if e.step.extrapolation == "constant":
            value = e.Max(e.Min(value, e.const([high])), e.const([low]))
        parts.append(_piecewise(e, value, knots, table[..., _kept(e.step, table.shape[-1])]))
    return e.Concat(*parts, axis=1) if len(parts) > 1 else parts[0]


def _kept(step: Any, columns: int) -> slice:
    return slice(0, columns if step.include_bias else columns - 1)


def _polynomials(basis: Any, low: float, high: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Knots of the inner intervals, and coefficients [interval, power, basis function]."""
    knots = np.unique(basis.t[(basis.t >= low) & (basis.t <= high)])
    starts = knots[:-1]
    powers = [
        np.asarray(basis(starts, nu=power)) / factorial(power) for power in range(basis.k + 1)
    ]
    return knots, np.stack(powers, axis=1)


def _piecewise(e: Emitter, value: Any, knots: NDArray[Any], table: NDArray[Any]) -> Any:
    """Polynomials [interval, power, output] of ``value - knot``, for value [rows, 1]."""
    inner, count = knots[1:-1], len(knots) - 1
    if len(inner):
        where = e.Cast(e.Squeeze(_place(e, value, inner), np.array([1])), to=7)
    else:
        where = e.Cast(e.Squeeze(e.Mul(value, e.const([0.0])), np.array([1])), to=7)
    start = e.Gather(e.const(knots[:count, None]), where, axis=0)
    step = e.Sub(value, start)
    found = e.Gather(e.const(table), where, axis=0)
    out = None
    for power in reversed(range(table.shape[1])):  # Horner
        level = e.Squeeze(e.Gather(found, np.array([power], dtype=np.int64), axis=1), np.array([1]))
        out = level if out is None else e.Add(e.Mul(out, step), level)
    return out


def isotonic(e: Emitter, x: Any) -> Any:
    """The line between the learned points, held at its ends."""
    xs = np.asarray(e.step.X_thresholds_, dtype=np.float64)
    ys = np.asarray(e.step.y_thresholds_, dtype=np.float64)
    if len(xs) == 1:
        return e.Add(e.Mul(x, e.const([0.0])), e.const(ys))
    value = e.Max(e.Min(x, e.const([xs[-1]])), e.const([xs[0]]))
    slopes = np.diff(ys) / np.diff(xs)
    return _piecewise(e, value, xs, np.stack([ys[:-1], slopes], axis=1)[..., None])


def one_hot(e: Emitter, x: Any) -> Any:
    """1 in the column of the category that a number is; a dropped category has no column."""
    dropped = e.step.drop_idx_
    parts = []
    for column, known in enumerate(e.step.categories_):
        found = _categories(e, _column(e, x, column), known)
        if dropped is not None and dropped[column] is not None:
            kept = np.delete(np.arange(len(known)), int(dropped[column]))
            found = e.Gather(found, kept.astype(np.int64), axis=1)
        parts.append(found)
    return e.Concat(*parts, axis=1)


def ordinal(e: Emitter, x: Any) -> Any:
    """The position of the category that a number is; what the step says for any other."""
    unknown = -1.0 if e.step.unknown_value is None else float(e.step.unknown_value)
    parts = []
    for column, known in enumerate(e.step.categories_):
        value = _column(e, x, column)
        found = _categories(e, value, known)
        code = e.MatMul(found, e.const(np.arange(len(known))[:, None]))
        any_known = e.MatMul(found, e.const(np.ones((len(known), 1))))
        code = e.Where(e.Greater(any_known, e.const([0.0])), code, e.const([unknown]))
        if np.isnan(np.asarray(known, dtype=np.float64)).any():
            missing = float(e.step.encoded_missing_value)
            code = e.Where(e.IsNaN(value), e.const([missing]), code)
        parts.append(code)
    return e.Concat(*parts, axis=1)


def _column(e: Emitter, x: Any, column: int) -> Any:
    return e.Gather(x, np.array([column], dtype=np.int64), axis=1)


def _categories(e: Emitter, value: Any, known: NDArray[Any]) -> Any:
    """1 where a value [rows, 1] is the category, [rows, categories]; NaN may be one."""
    categories = np.asarray(known, dtype=np.float64)[None, :]
    found = e.number(e.Equal(value, e.const(categories)))
    holes = np.isnan(categories)
    if not holes.any():
        return found
    return e.Add(found, e.Mul(e.number(e.IsNaN(value)), e.const(holes)))


def squares(e: Emitter, x: Any, points: NDArray[Any]) -> Any:
    """Squared Euclidean distance of each row to each point, [rows, points]."""
    apart = e.Sub(e.Unsqueeze(x, np.array([1])), e.const(points[None]))
    return e.ReduceSumSquare(apart, axes=[2], keepdims=0)


def kernel(e: Emitter, x: Any, points: NDArray[Any], name: str, gamma: float) -> Any:
    """A kernel of each row with each point: ``rbf``, ``linear``."""
    if name == "linear":
        return e.MatMul(x, e.const(points.T))
    return e.Exp(e.Mul(squares(e, x, points), e.const([-gamma])))


def outlying(e: Emitter, x: Any) -> tuple[Any, Any]:
    """Mahalanobis distance against the learned offset: 1 inside, -1 outside."""
    apart = e.Sub(x, e.const(np.atleast_2d(e.step.location_)))
    weighted = e.MatMul(apart, e.const(e.step.get_precision()))
    squared = e.ReduceSum(e.Mul(weighted, apart), np.array([1]), keepdims=1)
    score = e.Sub(e.Neg(squared), e.const([float(e.step.offset_)]))
    inside = e.Squeeze(e.GreaterOrEqual(score, e.const([0.0])), np.array([1]))
    return e.Where(inside, np.array([1], dtype=np.int64), np.array([-1], dtype=np.int64)), score


def nearest(e: Emitter, x: Any, centres: NDArray[Any], labels: NDArray[Any]) -> tuple[Any, Any]:
    """The label of the centre that is nearest; the first at a tie."""
    apart = squares(e, x, np.asarray(centres, dtype=np.float64))
    found = e.ArgMin(apart, axis=1, keepdims=0)
    return e.Gather(labels.astype(np.int64), found, axis=0), apart
