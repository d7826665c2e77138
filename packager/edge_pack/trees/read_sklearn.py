"""scikit-learn's fitted trees as a ``Forest``: its own numbers, in its own order.

Guards: nothing is computed here that the estimator computes otherwise; what is not constant for
every row (a ``GradientBoosting`` that starts from another model) is not read at all.

Source: scikit-learn 1.4 to 1.9, ``tree/_tree.pyx``, ``ensemble/_gb.py``, ``ensemble/_iforest.py``,
``ensemble/_hist_gradient_boosting``. All but HistGradientBoosting round a value to float32 before
they compare it.

Pure: reads attributes of fitted estimators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_pack.trees.cuts import least
from edge_pack.trees.form import ABOVE_ZERO, LEAF, LEQ, MEMBER, Codes, Forest, Link

Reader = Callable[[Any], Forest | None]


def tree(model: Any) -> Forest | None:
    """DecisionTree and ExtraTree."""
    return _averaged(model, [model])


def forest(model: Any) -> Forest | None:
    """RandomForest and ExtraTrees: the mean of what the trees say."""
    return _averaged(model, model.estimators_)


def gradient_boosting(model: Any) -> Forest | None:
    """GradientBoosting: the starting value, then every stage's leaves times the learning rate."""
    start = model.init_
    if not isinstance(start, str) and type(start).__name__ not in (
        "DummyClassifier",
        "DummyRegressor",
    ):
        return None
    base = model._raw_predict_init(np.zeros((1, model.n_features_in_)))[0]
    stages = model.estimators_
    labels = _labels(model)
    scale, link = model.learning_rate, _link(model, labels, len(base))
    if type(model._loss).__name__ == "ExponentialLoss":  # a probability is sigmoid(2 * total)
        scale, base = 2.0 * scale, 2.0 * base
    return _forest(
        [each.tree_ for each in stages.ravel()],
        width=int(model.n_features_in_),
        values=[scale * each.tree_.value[:, 0, :1] for each in stages.ravel()],
        target=np.tile(np.arange(stages.shape[1]), stages.shape[0]),
        base=base,
        link=link,
        labels=labels,
        probabilities=bool(labels),
        threshold=0.0,
    )


def isolation_forest(model: Any) -> Forest | None:
    """IsolationForest: the depth that a row reaches, and how much of it is still an outlier."""
    depths = [
        (path + rest - 1.0).reshape(-1, 1)
        for path, rest in zip(
            model._decision_path_lengths, model._average_path_length_per_tree, strict=True
        )
    ]
    most = sum(float(depth.max()) for depth in depths)
    return _forest(
        [each.tree_ for each in model.estimators_],
        width=int(model.n_features_in_),
        values=depths,
        columns=[np.asarray(chosen) for chosen in model.estimators_features_],
        base=np.zeros(1),
        labels=(-1, 1),
        threshold=least(lambda total: _is_inlier(model, total), -1.0, 2 * most + 1),
    )


def _is_inlier(model: Any, depth: NDArray[np.float64]) -> NDArray[np.bool_]:
    """As ``IsolationForest._compute_score_samples`` and ``predict`` have it."""
    most = int(model._max_samples)
    mean = {1: 0.0, 2: 1.0}.get(most) if most <= 2 else None
    if mean is None:
        mean = 2.0 * (np.log(most - 1.0) + np.euler_gamma) - 2.0 * (most - 1.0) / most
    divisor = len(model.estimators_) * np.full(1, mean)
    share = np.divide(depth, divisor, out=np.ones_like(depth), where=divisor != 0)
    return np.asarray(-(2 ** (-share)) - model.offset_ >= 0)


def hist_gradient_boosting(model: Any) -> Forest | None:
    """HistGradientBoosting, its categories as codes of the raw column."""
    predictors = [each for stage in model._predictors for each in stage]
    counts = np.array([len(each.nodes) for each in predictors])
    roots = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    nodes = np.concatenate([each.nodes for each in predictors])
    first = np.repeat(roots, counts)
    leaf = nodes["is_leaf"].astype(bool)
    order, codes = _columns_and_codes(model)
    asks = nodes["is_categorical"].astype(bool) & ~leaf
    column = np.where(leaf, -1, order[np.where(leaf, 0, nodes["feature_idx"])])
    by_column = {each.column: each for each in codes}
    coded = {int(node): by_column[int(column[node])] for node in np.flatnonzero(asks)}
    sets, member = _sets(predictors, nodes, np.repeat(np.arange(len(counts)), counts), coded)
    used = set(column[asks].tolist())
    index = np.arange(len(nodes))
    outputs = int(model.n_trees_per_iteration_)
    labels = _labels(model)
    return Forest(
        width=int(model.n_features_in_),
        roots=roots,
        column=column.astype(np.int64),
        test=np.where(leaf, LEAF, np.where(asks, MEMBER, LEQ)).astype(np.int64),
        cut=np.where(leaf | asks, 0.0, nodes["num_threshold"]),
        yes=np.where(leaf, index, first + nodes["left"]).astype(np.int64),
        no=np.where(leaf, index, first + nodes["right"]).astype(np.int64),
        missing_yes=nodes["missing_go_to_left"].astype(bool) & ~leaf & ~asks,
        values=np.where(leaf, nodes["value"], 0.0).reshape(-1, 1),
        target=np.tile(np.arange(outputs), len(model._predictors)).astype(np.int64),
        outputs=outputs,
        base=np.asarray(model._baseline_prediction, dtype=np.float64).ravel(),
        member=member,
        cover=nodes["count"].astype(np.float64),
        sets=sets,
        codes=tuple(each for each in codes if each.column in used),
        link=_link(model, labels, outputs),
        labels=labels,
        probabilities=bool(labels),
    )


def _columns_and_codes(model: Any) -> tuple[NDArray[np.int64], tuple[Codes, ...]]:
    """The raw column of each column that its trees see, and the categories of raw columns."""
    categorical = model.is_categorical_
    if categorical is None:
        return np.arange(model.n_features_in_), ()
    order = np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])
    known = model._preprocessor.named_transformers_["encoder"].categories_
    return order, tuple(
        codes_of(int(column), values) for column, values in zip(order, known, strict=False)
    )


def codes_of(column: int, values: NDArray[Any], source: int = -1) -> Codes:
    """The codes of an encoder's categories, in its order; missing ones are left out."""
    plain = [item for item in np.asarray(values).tolist() if item is not None and item == item]  # noqa: PLR0124
    text = any(isinstance(item, str) for item in plain)
    known = tuple(str(i) for i in plain) if text else tuple(float(i) for i in plain)
    return Codes(column, known, text=text, source=source)


def _sets(
    predictors: Sequence[Any],
    nodes: Any,
    tree_of: NDArray[np.int64],
    asking: dict[int, Codes],
) -> tuple[tuple[tuple[int, ...], ...], NDArray[np.int64]]:
    """Which codes each categorical node sends left: its bitset; unknown and missing as it says."""
    member = np.full(len(nodes), -1, dtype=np.int64)
    sets: dict[tuple[int, ...], int] = {}
    for node, coded in asking.items():
        words = predictors[tree_of[node]].raw_left_cat_bitsets[nodes["bitset_idx"][node]]
        bits = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), bitorder="little")
        left = np.flatnonzero(bits[: len(coded.known)]).tolist()
        if nodes["missing_go_to_left"][node]:
            left += [coded.unknown, coded.missing]
        member[node] = sets.setdefault(tuple(left), len(sets))
    return tuple(sets), member


def _averaged(model: Any, estimators: Sequence[Any]) -> Forest | None:
    labels = _labels(model)
    values = [
        each.tree_.value[:, 0, :] if labels else each.tree_.value[:, :, 0] for each in estimators
    ]
    return _forest(
        [each.tree_ for each in estimators],
        width=int(model.n_features_in_),
        values=values,
        base=np.zeros(values[0].shape[1]),
        divisor=float(len(estimators)),
        labels=labels,
        probabilities=bool(labels),
    )


def _forest(
    trees: Sequence[Any],
    *,
    width: int,
    values: Sequence[NDArray[Any]],
    base: NDArray[np.float64],
    target: NDArray[np.int64] | None = None,
    columns: Sequence[NDArray[Any]] | None = None,
    divisor: float = 1.0,
    link: Link = "identity",
    labels: tuple[Any, ...] = (),
    probabilities: bool = False,
    threshold: float = ABOVE_ZERO,
) -> Forest:
    """One forest of many ``sklearn.tree._tree.Tree``."""
    counts = np.array([each.node_count for each in trees])
    roots = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    first = np.repeat(roots, counts)
    left = np.concatenate([each.children_left for each in trees])
    right = np.concatenate([each.children_right for each in trees])
    leaf, index = left < 0, np.arange(len(left))
    picked = [
        each.feature if columns is None else columns[i][np.maximum(each.feature, 0)]
        for i, each in enumerate(trees)
    ]
    goes_left = [np.asarray(each.missing_go_to_left, dtype=bool) for each in trees]
    return Forest(
        width=width,
        roots=roots,
        column=np.where(leaf, -1, np.concatenate(picked)).astype(np.int64),
        test=np.where(leaf, LEAF, LEQ).astype(np.int64),
        cut=np.where(leaf, 0.0, np.concatenate([each.threshold for each in trees])),
        yes=np.where(leaf, index, first + left),
        no=np.where(leaf, index, first + right),
        missing_yes=np.concatenate(goes_left) & ~leaf,
        values=np.concatenate(values).astype(np.float64),
        target=np.zeros(len(trees), np.int64) if target is None else target.astype(np.int64),
        outputs=len(base),
        base=np.asarray(base, dtype=np.float64),
        member=np.full(len(left), -1, dtype=np.int64),
        cover=np.concatenate([each.weighted_n_node_samples for each in trees]),
        divisor=divisor,
        link=link,
        labels=labels,
        probabilities=probabilities,
        threshold=threshold,
        compares="float32",
    )


def _labels(model: Any) -> tuple[Any, ...]:
    classes = getattr(model, "classes_", None)
    return () if classes is None else tuple(np.asarray(classes).tolist())


def _link(model: Any, labels: tuple[Any, ...], outputs: int) -> Link:
    if labels:
        return "sigmoid" if outputs == 1 else "softmax"
    inverse: Literal["exp", "identity"] = (
        "exp" if type(model._loss.link).__name__ == "LogLink" else "identity"
    )
    return inverse


READERS: dict[str, Reader] = {
    "sklearn.DecisionTreeClassifier": tree,
    "sklearn.DecisionTreeRegressor": tree,
    "sklearn.ExtraTreeClassifier": tree,
    "sklearn.ExtraTreeRegressor": tree,
    "sklearn.RandomForestClassifier": forest,
    "sklearn.RandomForestRegressor": forest,
    "sklearn.ExtraTreesClassifier": forest,
    "sklearn.ExtraTreesRegressor": forest,
    "sklearn.GradientBoostingClassifier": gradient_boosting,
    "sklearn.GradientBoostingRegressor": gradient_boosting,
    "sklearn.HistGradientBoostingClassifier": hist_gradient_boosting,
    "sklearn.HistGradientBoostingRegressor": hist_gradient_boosting,
    "sklearn.IsolationForest": isolation_forest,
}
"""Package and class -> its reader."""
