"""The same model with its first steps in float64: for values that float32 does not hold.

A meter at 1 700 000.25 is 1 700 000.25 in float64 and 1 700 000.2 or .4 in float32. So the input
tensor becomes float64, and numbers become float32 only once an offset was taken off: behind the
scalers of the model itself, or behind one that is put there, whose offset the next step's learned
parameters take up. Where neither is possible the whole model computes in float64.

Guards: each change is equal in exact arithmetic; the model as given is never touched.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.estimators.emit import PURPOSE
from edge_pack.extras import need

_CENTRING = frozenset({
    "StandardScaler", "RobustScaler", "MinMaxScaler", "PowerTransformer", "KBinsDiscretizer",
    "SplineTransformer", "MissingIndicator", "Binarizer", "PCA", "IncrementalPCA",
})  # fmt: skip
"""Behind one of these a value is as large as its spread."""
_ELEMENTWISE = frozenset({
    "SimpleImputer", "MaxAbsScaler", "FunctionTransformer", "PolynomialFeatures",
    "VarianceThreshold", "SelectKBest", "SelectPercentile", "SelectFromModel",
})  # fmt: skip
"""These pass an offset on, and run in float64."""


def widened(model: Any, offsets: NDArray[np.float64]) -> Any | None:
    """The model for float64 inputs, cast to float32 where that is safe; None: nowhere is.

    Args:
        model: a copy that may be changed. offsets: a middle value of each input column.
    """
    steps = list(model.steps) if hasattr(model, "steps") else [("model", model)]
    for number, (_, step) in enumerate(steps):
        if step is None or isinstance(step, str):
            continue
        if hasattr(step, "transformers_"):
            _cast_branches(step)
            return model
        if _settles(step):
            return _with_cast(steps, number + 1)
        if type(step).__name__ not in _ELEMENTWISE:
            return _shifted(steps, number, offsets)
    return None


def _settles(step: Any) -> bool:
    """Whether a step's output holds no offset any more; branches get casts of their own."""
    name = type(step).__name__
    if name == "StandardScaler":
        return bool(step.with_mean)
    if name == "RobustScaler":
        return bool(step.with_centering)
    return name in _CENTRING


def _cast_branches(step: Any) -> None:
    """Each branch of a column transformer ends in a cast: its numbers were scaled there."""
    step.transformers_ = [
        (name, branch if _dropped(branch, picked) else _cast_branch(branch), picked)
        for name, branch, picked in step.transformers_
    ]


def _dropped(branch: Any, picked: Any) -> bool:
    return (isinstance(branch, str) and branch == "drop") or not np.size(picked)


def _cast_branch(branch: Any) -> Any:
    pipeline = need("sklearn.pipeline", PURPOSE)
    if isinstance(branch, str):
        return _caster()
    steps = list(branch.steps) if hasattr(branch, "steps") else [("step", branch)]
    for number, (_, step) in enumerate(steps):
        if _settles(step):
            return _with_cast(steps, number + 1)
    return pipeline.Pipeline([*steps, ("edge_pack_cast", _caster())])


def _caster() -> Any:
    return need("skl2onnx.sklapi", PURPOSE).CastTransformer(dtype=np.float32)


def _with_cast(steps: Sequence[tuple[str, Any]], at: int) -> Any:
    pipeline = need("sklearn.pipeline", PURPOSE)
    return pipeline.Pipeline([*steps[:at], ("edge_pack_cast", _caster()), *steps[at:]])


def _shifted(steps: Sequence[tuple[str, Any]], at: int, offsets: NDArray[np.float64]) -> Any | None:
    """Take the offsets off in front of step ``at``, whose parameters take them up."""
    if at:  # what the earlier steps make of an offset is not known
        return None
    name, step = steps[0]
    for adjust in (_linear, _network, _points, _means):
        moved = adjust(copy.deepcopy(step), offsets)
        if moved is not None:
            scaler = _subtract(offsets)
            return _with_cast([("edge_pack_offset", scaler), (name, moved), *steps[1:]], 1)
    return None


def _subtract(offsets: NDArray[np.float64]) -> Any:
    scaler = need("sklearn.preprocessing", PURPOSE).StandardScaler(with_std=False)
    scaler.mean_, scaler.scale_, scaler.var_ = offsets, None, None
    scaler.n_features_in_, scaler.n_samples_seen_ = len(offsets), 1
    return scaler


_Adjust = Callable[[Any, NDArray[np.float64]], Any | None]


def _linear(step: Any, offsets: NDArray[np.float64]) -> Any | None:
    """coef @ (x - c) + (intercept + coef @ c)."""
    own = type(step).__module__.startswith(("sklearn.linear_model", "sklearn.svm._classes"))
    if not (own and hasattr(step, "coef_") and hasattr(step, "intercept_")):
        return None
    if hasattr(step, "support_vectors_") or type(step).__name__ == "SGDOneClassSVM":
        return None
    shift = np.asarray(step.coef_, dtype=np.float64) @ offsets
    step.intercept_ = np.asarray(step.intercept_, dtype=np.float64) + (
        shift if np.ndim(step.intercept_) else float(np.squeeze(shift))
    )
    if np.ndim(shift) == 0:
        step.intercept_ = float(step.intercept_)
    return step


def _network(step: Any, offsets: NDArray[np.float64]) -> Any | None:
    """The first layer's intercepts take the offsets."""
    if type(step).__name__ not in ("MLPClassifier", "MLPRegressor"):
        return None
    step.intercepts_ = [step.intercepts_[0] + offsets @ step.coefs_[0], *step.intercepts_[1:]]
    return step


def _points(step: Any, offsets: NDArray[np.float64]) -> Any | None:
    """Distances stay when every learned point moves along."""
    name = type(step).__name__
    if name in ("SVC", "SVR", "NuSVC", "NuSVR", "OneClassSVM") and step.kernel == "rbf":
        step.support_vectors_ = step.support_vectors_ - offsets
        return step
    if name in ("KMeans", "MiniBatchKMeans"):
        step.cluster_centers_ = step.cluster_centers_ - offsets
        return step
    return None


def _means(step: Any, offsets: NDArray[np.float64]) -> Any | None:
    """Centres of distributions move along."""
    fields = {"GaussianNB": "theta_", "GaussianMixture": "means_", "PCA": "mean_"}
    field = fields.get(type(step).__name__)
    if field is None:
        return None
    setattr(step, field, getattr(step, field) - offsets)
    return step
