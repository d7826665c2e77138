"""Every pattern of a scikit-learn model that is known to be wrong, lost or slow elsewhere.

Guards: one registry says what a build refuses and what ``edge-pack doctor`` reports, so the two
cannot disagree. Pure: reads attributes of fitted estimators, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from edge_contract.errors import BuildFault
from edge_pack.estimators import formulas, text
from edge_pack.steps import walk

Severity = Literal["refused", "slow", "handled", "note"]
Reason = tuple[str, str] | None
"""What is wrong and the way out, or None."""


@dataclass(frozen=True)
class Finding:
    """One pattern found.

    Attributes:
        pattern: its name, stable for programs. where: step, column or node.
        severity: ``refused``: a build stops; ``slow``: it converts, slower than the original;
            ``handled``: it comes out right here; ``note``: worth knowing.
        action: what a build does about it, or what the user can do.
    """

    pattern: str
    where: str
    severity: Severity
    what: str
    action: str


def check_supported(model: Any) -> None:
    """Raise BuildFault for the first step that is known to convert wrongly, or not at all."""
    for where, step in walk(model):
        found = refusal(step)
        if found is not None:
            what, advice = found
            raise BuildFault(
                f"step {where!r} ({type(step).__name__}) cannot be packaged: {what}", advice=advice
            )


def of_model(model: Any) -> Iterator[Finding]:
    """Every pattern in a fitted model, step by step."""
    steps = list(walk(model))
    for where, step in steps:
        name = type(step).__name__
        label = f"{where} ({name})" if where != name else name
        found = refusal(step)
        if found is not None:
            yield Finding(f"no-conversion-{name}", label, "refused", *found)
        elif name in _SLOW:
            yield Finding("slower-as-onnx", label, "slow", _SLOW[name], _SLOW_ACTION)
        elif name in _HANDLED and _HANDLED[name][0](step):
            yield Finding(f"handled-{name}", label, "handled", *_HANDLED[name][1:])
    scaler = next((where for where, step in steps if type(step).__name__ in _SCALERS), "")
    forest = next((where for where, step in steps if _is_forest(step)), "")
    if scaler and forest:
        yield Finding(
            "scaler-before-trees", scaler, "handled",
            f"scaled in float32, a value can fall on the other side of a cut of {forest!r}",
            "The scaler is folded into the trees' cuts, which lie between the data's own values.",
        )  # fmt: skip


_SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")


def _is_forest(step: Any) -> bool:
    return any(part in type(step).__name__ for part in ("Forest", "Tree", "GradientBoosting"))


def refusal(step: Any) -> Reason:
    """Why a step cannot be packaged and the way out, or None."""
    check = _REFUSED.get(type(step).__name__)
    return check(step) if check is not None else None


def _unknown_function(step: Any) -> Reason:
    if step.func is None or formulas.function(step.func):
        return None
    return (
        "it calls Python code, which a device without that code cannot run",
        f"Use one of {', '.join(formulas.FUNCTIONS)}; or do that step before the model, and "
        "train on its result.",
    )


def _unknown_way_back(step: Any) -> Reason:
    back = step.transformer_
    name = type(back).__name__
    known = name in _SCALERS or (
        name == "FunctionTransformer"
        and (back.inverse_func is None or formulas.function(back.inverse_func))
    )
    if known:
        return None
    return (
        "its inverse transformation has no formula here",
        "Use StandardScaler, or func and inverse_func of numpy, such as numpy.log1p and "
        "numpy.expm1; or train on the transformed target and turn answers back after predicting.",
    )


def _setting(field: str, allowed: tuple[object, ...], use: str) -> Callable[[Any], Reason]:
    """A setting that only some values of are written right."""

    def check(step: Any) -> Reason:
        value = getattr(step, field, None)
        if value in allowed:
            return None
        return (f"{field}={value!r} has no formula here", f"Train with {field}={use!r}.")

    return check


QUANTILES_MAX = 64
"""skl2onnx walks its expression twice for each halving: 300 quantiles took minutes."""


def _quantiles(step: Any) -> Reason:
    if step.output_distribution != "uniform":
        return _setting("output_distribution", ("uniform",), "uniform")(step)
    if getattr(step, "n_quantiles_", 0) <= QUANTILES_MAX:
        return None
    return (
        f"the conversion of {step.n_quantiles_} quantiles does not end in minutes",
        f"Train with n_quantiles={QUANTILES_MAX} or fewer.",
    )


def _rare_categories(step: Any) -> Reason:
    if not getattr(step, "_infrequent_enabled", False):
        return None
    return (
        "there is no conversion of min_frequency and max_categories",
        "Name rare categories alike in the data, and train without those settings.",
    )


def _categorical_trees(step: Any) -> Reason:
    """Numbers that name something are looked up beside its trees; text has no tensor there."""
    if getattr(step, "is_categorical_", None) is None:
        return None
    known = step._preprocessor.named_transformers_["encoder"].categories_
    if not any(isinstance(item, str) for each in known for item in each.tolist()):
        return None
    return (
        "inside another model, its text categories would need a tensor of their own",
        "Package it by itself or at the end of a pipeline; or encode categories with "
        "OneHotEncoder before it, and fit it without categorical_features.",
    )


def _by_decision(step: Any) -> Reason:
    method, inner = step.response_method, getattr(step, "estimator_", step.estimator)
    if method == "auto" and not hasattr(inner, "predict_proba"):
        method = "decision_function"
    if method != "decision_function":
        return None
    return (
        "its threshold is of decision_function, the graph has probabilities",
        "Use an estimator with predict_proba, and response_method='predict_proba'.",
    )


def _always(what: str, advice: str) -> Callable[[Any], Reason]:
    return lambda _step: (what, advice)


_NO_ANSWER = "there is no conversion of it to ONNX"
_ELSEWHERE = "Replace the step with one that converts, or do it before the model."

_REFUSED: dict[str, Callable[[Any], Reason]] = {
    "HistGradientBoostingClassifier": _categorical_trees,
    "HistGradientBoostingRegressor": _categorical_trees,
    "OneHotEncoder": _rare_categories,
    "OrdinalEncoder": _rare_categories,
    "TfidfVectorizer": text.unsupported,
    "CountVectorizer": text.unsupported,
    "HashingVectorizer": _always(
        "no runtime operator computes its hash", "Use TfidfVectorizer or CountVectorizer."
    ),
    "FunctionTransformer": _unknown_function,
    "TransformedTargetRegressor": _unknown_way_back,
    "FixedThresholdClassifier": _by_decision,
    "TunedThresholdClassifierCV": _by_decision,
    "SplineTransformer": _setting("extrapolation", ("constant", "continue"), "constant"),
    "QuantileTransformer": _quantiles,
    "Nystroem": _setting("kernel", ("rbf", "linear"), "rbf"),
    "KernelRidge": _setting("kernel", ("rbf", "linear"), "rbf"),
    "IsotonicRegression": _setting("out_of_bounds", ("clip",), "clip"),
    "NearestCentroid": _setting("metric", ("euclidean",), "euclidean"),
    "FeatureAgglomeration": _always(
        _NO_ANSWER, "Use PCA, or average the columns before the model."
    ),
    "GaussianProcessClassifier": _always(
        _NO_ANSWER, "Use SVC(probability=True) with the same kernel, or GaussianProcessRegressor."
    ),
    "RadiusNeighborsClassifier": _always(
        "its conversion fails on rows without a neighbour", "Use KNeighborsClassifier."
    ),
    "RandomTreesEmbedding": _always(_NO_ANSWER, "Use the forest itself as the model."),
    "KNNImputer": _always(_NO_ANSWER, "Use SimpleImputer."),
    "LabelPropagation": _always(_NO_ANSWER, "Use KNeighborsClassifier on its transduction_."),
    "LabelSpreading": _always(_NO_ANSWER, "Use KNeighborsClassifier on its transduction_."),
    "DummyClassifier": _always(
        "it answers the same whatever it is sent", "Answer it where it is asked, without a model."
    ),
    "DummyRegressor": _always(
        "it answers the same whatever it is sent", "Answer it where it is asked, without a model."
    ),
    "Isomap": _always(_NO_ANSWER, "Use PCA or KernelPCA."),
    "LocallyLinearEmbedding": _always(_NO_ANSWER, "Use PCA or KernelPCA."),
    "NMF": _always("it solves a new problem for each row", "Use PCA or TruncatedSVD."),
    "MiniBatchNMF": _always("it solves a new problem for each row", "Use PCA or TruncatedSVD."),
    "LatentDirichletAllocation": _always(
        "it solves a new problem for each row", "Use TruncatedSVD."
    ),
    "DictionaryLearning": _always("it solves a new problem for each row", "Use PCA."),
    "MiniBatchDictionaryLearning": _always("it solves a new problem for each row", "Use PCA."),
    "SparseCoder": _always("it solves a new problem for each row", "Use PCA."),
    "BisectingKMeans": _always(_NO_ANSWER, "Use KMeans."),
    "SkewedChi2Sampler": _always(_NO_ANSWER, "Use RBFSampler or Nystroem."),
    "AdditiveChi2Sampler": _always(_NO_ANSWER, "Use RBFSampler or Nystroem."),
    "PolynomialCountSketch": _always(_NO_ANSWER, "Use PolynomialFeatures."),
    "BernoulliRBM": _always(_NO_ANSWER, "Use MLPClassifier, or PCA before the model."),
    "RegressorChain": _always(_NO_ANSWER, "Use MultiOutputRegressor."),
    "OutputCodeClassifier": _always(_NO_ANSWER, "Use OneVsRestClassifier."),
    "RadiusNeighborsTransformer": _always(_NO_ANSWER, _ELSEWHERE),
    "KNeighborsTransformer": _always(_NO_ANSWER, _ELSEWHERE),
}
"""What the survey of all estimators (docs/support.md) found wrong or missing."""

_SLOW_ACTION = (
    "It is built; compare both latencies in NAME.measured.json, and think of a smaller model."
)
_SLOW_STEPS = (
    "KNeighborsClassifier", "KNeighborsRegressor", "LocalOutlierFactor",
    "GaussianProcessRegressor", "RadiusNeighborsRegressor",
)  # fmt: skip
_SLOW = dict.fromkeys(_SLOW_STEPS, "as ONNX it was measured 3-20 times slower than scikit-learn")


def _any(_step: Any) -> bool:
    return True


_OFFSETS = "large offsets at fine resolution do not survive its arithmetic in float32"
_FLOAT64 = "Where float32 changes an answer, it is computed in float64 in the graph."
_HANDLED: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "PowerTransformer": (_any, "stock conversion flips 40 % of labels on meter readings", _FLOAT64),
    "StandardScaler": (_any, _OFFSETS, _FLOAT64),
    "MinMaxScaler": (_any, _OFFSETS, _FLOAT64),
    "RobustScaler": (_any, _OFFSETS, _FLOAT64),
    "TunedThresholdClassifierCV": (
        _any, "stock conversion ignores its threshold", "The threshold is part of the graph.",
    ),
    "LinearDiscriminantAnalysis": (
        lambda step: len(getattr(step, "classes_", ())) == 2,
        "stock conversion squares the odds of two classes",
        "It is written as the logistic regression that it is.",
    ),
    "HistGradientBoostingClassifier": (
        _any, "its stock conversion fails", "It is emitted by our own tree writer.",
    ),
    "TfidfVectorizer": (
        _any, "stock conversion finds other words in text that is not ASCII",
        "Words are found as scikit-learn does; lower case is made before the graph.",
    ),
    "CountVectorizer": (
        _any, "stock conversion finds other words in text that is not ASCII",
        "Words are found as scikit-learn does; lower case is made before the graph.",
    ),
}  # fmt: skip
