"""Which scikit-learn steps are written by ``formulas`` instead of skl2onnx, and under which terms.

Guards: a step is taught to skl2onnx once; a setting that its formula does not cover is refused by
name (``patterns``), never written as if it were the default.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from edge_pack.estimators import emit, formulas, text
from edge_pack.estimators.emit import PURPOSE, Emitter
from edge_pack.extras import need


def _same(_step: Any, columns: int) -> int:
    return columns


def _support(step: Any, _columns: int) -> int:
    return int(step.get_support().sum())


def _names(step: Any, _columns: int) -> int:
    return len(step.get_feature_names_out())


def _select(e: Emitter, x: Any) -> Any:
    kept = np.flatnonzero(e.step.get_support()).astype(np.int64)
    return e.Gather(x, kept, axis=1)


def _factor(e: Emitter, x: Any) -> Any:
    step = e.step
    scaled = step.components_ / step.noise_variance_
    posterior = np.linalg.inv(np.eye(len(step.components_)) + scaled @ step.components_.T)
    return formulas.centred(e, x, step.mean_, scaled.T @ posterior)


def _independent(e: Emitter, x: Any) -> Any:
    centre = e.step.mean_ if e.step.whiten else np.zeros(e.step.components_.shape[1])
    return formulas.centred(e, x, centre, e.step.components_.T)


def _sparse_components(e: Emitter, x: Any) -> Any:
    """Ridge regression on the components (SparsePCA.transform)."""
    step = e.step
    gram = step.components_ @ step.components_.T
    weights = np.linalg.solve(gram + step.ridge_alpha * np.eye(len(gram)), step.components_).T
    return formulas.centred(e, x, step.mean_, weights)


def _projected(e: Emitter, x: Any) -> Any:
    components = e.step.components_
    dense = components.toarray() if hasattr(components, "toarray") else components
    return e.MatMul(x, e.const(np.asarray(dense).T))


def _crossed(e: Emitter, x: Any) -> Any:
    """CCA and PLSCanonical predict: a linear map around the means."""
    step = e.step
    plain = formulas.centred(e, x, step._x_mean, np.asarray(step.coef_).T)
    return e.Add(plain, e.const(np.atleast_2d(step.intercept_)))


def _fourier(e: Emitter, x: Any) -> Any:
    step = e.step
    turned = formulas.affine(step.random_weights_, step.random_offset_)(e, x)
    return e.Mul(e.Cos(turned), e.const([np.sqrt(2.0 / len(step.random_offset_))]))


def _gamma(step: Any, columns: int) -> float:
    gamma = getattr(step, "gamma", None)
    return float(gamma) if gamma is not None else 1.0 / columns


def _nystroem(e: Emitter, x: Any) -> Any:
    step = e.step
    near = formulas.kernel(
        e, x, step.components_, step.kernel, _gamma(step, step.components_.shape[1])
    )
    return e.MatMul(near, e.const(step.normalization_.T))


def _kernel_ridge(e: Emitter, x: Any) -> Any:
    step = e.step
    points = np.asarray(step.X_fit_, dtype=np.float64)
    near = formulas.kernel(e, x, points, step.kernel, _gamma(step, points.shape[1]))
    dual = np.asarray(step.dual_coef_)
    return e.MatMul(near, e.const(dual.reshape(len(points), -1)))


def _targets(step: Any, _columns: int) -> int:
    weights = np.asarray(step.dual_coef_ if hasattr(step, "dual_coef_") else step.coef_)
    return int(weights.shape[-1 if hasattr(step, "dual_coef_") else 0]) if weights.ndim == 2 else 1


def _shifted_mean(e: Emitter, x: Any) -> tuple[Any, Any]:
    centres = e.step.cluster_centers_
    return formulas.nearest(e, x, centres, np.arange(len(centres)))


def _birch(e: Emitter, x: Any) -> tuple[Any, Any]:
    return formulas.nearest(e, x, e.step.subcluster_centers_, e.step.subcluster_labels_)


def _centroid(e: Emitter, x: Any) -> tuple[Any, Any]:
    """The nearest centroid by itself; probabilities by distances in within-class deviations."""
    step = e.step
    scale = np.where(step.within_class_std_dev_ != 0, step.within_class_std_dev_, 1.0)
    scaled = formulas.squares(e, e.Div(x, e.const(scale)), step.centroids_ / scale)
    prior = np.atleast_2d(2.0 * np.log(step.class_prior_))
    decision = e.Sub(e.const(prior), scaled)
    if np.isclose(step.class_prior_, 1 / len(step.classes_)).all():
        label = e.ArgMin(formulas.squares(e, x, step.centroids_), axis=1, keepdims=0)
    else:
        label = e.ArgMax(decision, axis=1, keepdims=0)
    return label, e.Softmax(decision, axis=1)


def _threshold(e: Emitter, _x: Any) -> tuple[Any, Any]:
    """The inner model's probability of the positive label against the chosen threshold."""
    step = e.step
    scores = e.inner(step.estimator_, "label", "scores")[1]
    positive = step.pos_label if getattr(step, "pos_label", None) is not None else step.classes_[1]
    at = int(np.flatnonzero(np.asarray(step.classes_) == positive)[0])
    score = e.Squeeze(e.Gather(scores, np.array([at], dtype=np.int64), axis=1), np.array([1]))
    above = e.GreaterOrEqual(score, e.const([threshold_of(step)]))
    chosen, other = np.array([at], dtype=np.int64), np.array([1 - at], dtype=np.int64)
    return e.Where(above, chosen, other), scores


def threshold_of(step: Any) -> float:
    """The threshold that a fixed or tuned classifier decides by."""
    if hasattr(step, "best_threshold_"):
        return float(step.best_threshold_)
    return 0.5 if step.threshold == "auto" else float(step.threshold)


def _answers(step: Any, _columns: int) -> int:
    return int(step.transformer_.n_features_in_)


def _target(e: Emitter, _x: Any) -> Any:
    """The inner regressor, then the way back."""
    (value,) = e.inner(e.step.regressor_, "value")
    column = e.Reshape(value, np.array([-1, _answers(e.step, 0)], dtype=np.int64))
    back = e.step.transformer_
    if type(back).__name__ == "FunctionTransformer":
        return formulas.elementwise(e, column, back.inverse_func)
    scale = getattr(back, "scale_", None)
    if type(back).__name__ == "MinMaxScaler":
        return e.Div(e.Sub(column, e.const(back.min_)), e.const(scale))
    middle = getattr(back, "mean_", getattr(back, "center_", None))
    grown = e.Mul(column, e.const(scale)) if scale is not None else column
    return e.Add(grown, e.const(middle)) if middle is not None else grown


_TRANSFORMERS: dict[str, tuple[Callable[[Emitter, Any], Any], emit.Width]] = {
    "sklearn.preprocessing.PowerTransformer": (formulas.power, _same),
    "sklearn.preprocessing.PolynomialFeatures": (
        formulas.polynomial,
        lambda step, _columns: len(step.powers_),
    ),
    "sklearn.preprocessing.KBinsDiscretizer": (formulas.bins, formulas.bins_width),
    "sklearn.preprocessing.SplineTransformer": (
        formulas.spline,
        lambda step, _columns: int(step.n_features_out_),
    ),
    "sklearn.preprocessing.FunctionTransformer": (
        lambda e, x: formulas.elementwise(e, x, e.step.func),
        _same,
    ),
    "sklearn.impute.MissingIndicator": (
        formulas.missing,
        lambda step, _columns: len(step.features_),
    ),
    "sklearn.feature_selection.SequentialFeatureSelector": (_select, _support),
    "sklearn.decomposition.FactorAnalysis": (_factor, _names),
    "sklearn.decomposition.FastICA": (_independent, _names),
    "sklearn.decomposition.SparsePCA": (_sparse_components, _names),
    "sklearn.decomposition.MiniBatchSparsePCA": (_sparse_components, _names),
    "sklearn.random_projection.SparseRandomProjection": (_projected, _names),
    "sklearn.kernel_approximation.RBFSampler": (_fourier, _names),
    "sklearn.kernel_approximation.Nystroem": (_nystroem, _names),
}
_REGRESSORS: dict[str, tuple[Callable[[Emitter, Any], Any], emit.Width]] = {
    "sklearn.cross_decomposition.CCA": (_crossed, _targets),
    "sklearn.cross_decomposition.PLSCanonical": (_crossed, _targets),
    "sklearn.kernel_ridge.KernelRidge": (_kernel_ridge, _targets),
    "sklearn.isotonic.IsotonicRegression": (formulas.isotonic, lambda _step, _columns: 1),
    "sklearn.compose.TransformedTargetRegressor": (_target, _answers),
}
_LABELLERS: dict[str, Callable[[Emitter, Any], tuple[Any, Any]]] = {
    "sklearn.covariance.EllipticEnvelope": formulas.outlying,
    "sklearn.cluster.MeanShift": _shifted_mean,
    "sklearn.cluster.AffinityPropagation": _shifted_mean,
    "sklearn.cluster.Birch": _birch,
}
_CLASSIFIERS: dict[str, Callable[[Emitter, Any], tuple[Any, Any]]] = {
    "sklearn.neighbors.NearestCentroid": _centroid,
    "sklearn.model_selection.FixedThresholdClassifier": _threshold,
    "sklearn.model_selection.TunedThresholdClassifierCV": _threshold,
}
OWN = frozenset(
    path.rsplit(".", 1)[1]
    for group in (_TRANSFORMERS, _REGRESSORS, _LABELLERS, _CLASSIFIERS)
    for path in group
)
"""Classes whose formulas are ours."""


def teach() -> None:
    """Register every step of ours with skl2onnx; see ``lending``."""
    for paths, register in (
        (_TRANSFORMERS, emit.register_transformer),
        (_REGRESSORS, emit.register_regressor),
    ):
        for path, (formula, width) in paths.items():
            found = _class(path)
            if found is not None:
                register(found, formula, width)
    for path, labels in _LABELLERS.items():
        found = _class(path)
        if found is not None:
            emit.register_labeller(found, labels)
    for path, scores in _CLASSIFIERS.items():
        found = _class(path)
        if found is not None:
            emit.register_classifier(found, scores)
    text.teach()
    _teach_imputer()
    _teach_encoder("SklearnOneHotEncoder", formulas.one_hot)
    _teach_encoder("SklearnOrdinalEncoder", formulas.ordinal)
    _teach_network()
    _teach_zipmap()


def _class(path: str) -> Any:
    """The class, None where this scikit-learn is too old to have it."""
    module, name = path.rsplit(".", 1)
    return getattr(need(module, PURPOSE), name, None)


def _teach_imputer() -> None:
    """SimpleImputer of float64 numbers is ours; of text or float32 it stays skl2onnx's."""
    registration = need("skl2onnx.common._registration", PURPOSE)
    shapes = need("skl2onnx.common.data_types", PURPOSE)
    stock = registration.get_converter("SklearnImputer")._fct
    stock_shape = registration.get_shape_calculator("SklearnImputer")

    def numbers(operator: Any) -> bool:
        return not isinstance(operator.inputs[0].type, shapes.StringTensorType)

    def convert(scope: Any, operator: Any, container: Any) -> None:
        if not numbers(operator):
            stock(scope, operator, container)
            return
        e = Emitter(container, scope, operator)
        e.give(formulas.impute(e, e.x()))

    def shape(operator: Any) -> None:
        stock_shape(operator)
        if numbers(operator):
            kind = type(operator.outputs[0].type)
            width = formulas.imputed_width(operator.raw_operator, 0)
            operator.outputs[0].type = kind([None, width])

    supported = need("skl2onnx._supported_operators", PURPOSE)
    imputer = need("sklearn.impute", PURPOSE).SimpleImputer
    supported.update_registered_converter(imputer, "EdgePackSimpleImputer", shape, convert)


def _teach_encoder(alias: str, formula: Callable[[Emitter, Any], Any]) -> None:
    """Categories that are numbers are compared as such: skl2onnx cuts 2.5 to a known 2.

    Those of text stay skl2onnx's, column by column.
    """
    registration = need("skl2onnx.common._registration", PURPOSE)
    shapes = need("skl2onnx.common.data_types", PURPOSE)
    stock = registration.get_converter(alias)._fct

    def convert(scope: Any, operator: Any, container: Any) -> None:
        texts = [isinstance(given.type, shapes.StringTensorType) for given in operator.inputs]
        if all(texts):
            stock(scope, operator, container)
            return
        e = Emitter(container, scope, operator)
        whole = isinstance(operator.outputs[0].type, shapes.Int64TensorType)
        kind, parts, start = emit.INT64 if whole else emit.FLOAT, [], 0
        for given, is_text in zip(operator.inputs, texts, strict=True):
            stop = start + int(given.type.shape[1])
            part = _part(scope, given, operator.raw_operator, slice(start, stop))
            start = stop
            if is_text:
                stock(scope, part, container)
                found: Any = part.output_full_names
            else:
                inner = Emitter(container, scope, part)
                found = formula(inner, inner.x())
            parts.append(e.Cast(found, to=kind))
        e.give(e.Concat(*parts, axis=1))

    registration.register_converter(alias, convert, overwrite=True)


def _part(scope: Any, given: Any, step: Any, columns: slice) -> SimpleNamespace:
    """What a converter reads of an operator, for some columns of an encoder."""
    part = copy.copy(step)
    part.categories_ = step.categories_[columns]
    if getattr(step, "drop_idx_", None) is not None:
        part.drop_idx_ = step.drop_idx_[columns]
    name = scope.get_unique_variable_name("encoded")
    return SimpleNamespace(inputs=[given], raw_operator=part, output_full_names=name)


def _teach_network() -> None:
    """MLPRegressor of several outputs: skl2onnx writes them below each other in one column."""
    registration = need("skl2onnx.common._registration", PURPOSE)
    stock = registration.get_converter("SklearnMLPRegressor")._fct

    def convert(scope: Any, operator: Any, container: Any) -> None:
        step = operator.raw_operator
        if step.n_outputs_ == 1:
            stock(scope, operator, container)
            return
        name = scope.get_unique_variable_name("below")
        inner = SimpleNamespace(inputs=operator.inputs, raw_operator=step, output_full_names=name)
        stock(scope, inner, container)
        e = Emitter(container, scope, operator)
        e.give(e.Reshape(name, np.array([-1, step.n_outputs_], dtype=np.int64)))

    registration.register_converter("SklearnMLPRegressor", convert, overwrite=True)


def _teach_zipmap() -> None:
    """Let LinearSVC end a pipeline: skl2onnx 1.20 sets an option on it that it refuses."""
    registration = need("skl2onnx.common._registration", PURPOSE)
    converter = registration.get_converter("SklearnLinearSVC")
    allowed = converter.get_allowed_options()
    if "zipmap" not in allowed:
        registration.register_converter(
            "SklearnLinearSVC",
            converter._fct,
            overwrite=True,
            options={**allowed, "zipmap": [True, False, "columns"]},
        )
