"""Reads XGBoost's own JSON document (format of version 2.0 on) into a ``Forest``.

Guards: XGBoost compares ``value < split`` with both in float32 and adds leaves in float32;
a category outside the model, or none, follows the default side as its C++ does
(``common::Decision``: not in the set means left). A code is the whole number that a float32 holds
(``AsCat``), one below 0 is none (``InvalidCat``).

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label
from edge_pack.trees.assemble import Sets, Tree, assemble
from edge_pack.trees.form import ABOVE_ZERO, LT, MEMBER, Codes, Forest, Link, Rounding

_OBJECTIVES: dict[str, tuple[Link, str]] = {
    "binary:logistic": ("sigmoid", "binary"),
    "reg:logistic": ("sigmoid", "value"),
    "binary:logitraw": ("identity", "value"),
    "multi:softprob": ("softmax", "classes"),
    "multi:softmax": ("softmax", "classes"),
    "count:poisson": ("exp", "value"),
    "reg:gamma": ("exp", "value"),
    "reg:tweedie": ("exp", "value"),
    "survival:cox": ("exp", "value"),
    "survival:aft": ("exp", "value"),
    **dict.fromkeys(
        ("reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:pseudohubererror",
         "reg:absoluteerror", "reg:quantileerror", "rank:pairwise", "rank:ndcg", "rank:map"),
        ("identity", "value"),
    ),
}  # fmt: skip
"""Objective -> link, and what the totals mean (src/objective of XGBoost 3.2)."""


def document(raw: bytes) -> Mapping[str, Any]:
    """The parsed JSON. Raises BuildFault when it is not XGBoost's."""
    try:
        found = json.loads(raw)
        learner = found["learner"]
        name = learner["gradient_booster"]["name"]
        learner["objective"]["name"], learner["learner_model_param"]["num_feature"]
    except (ValueError, KeyError, TypeError) as error:
        raise BuildFault(
            "the model is not one of XGBoost's JSON documents",
            advice="Save it with Booster.save_model of XGBoost 2.1 or newer.",
        ) from error
    if name not in ("gbtree", "dart"):
        raise BuildFault(
            f"the booster is of kind {name!r}, which has no trees",
            advice="Train with booster='gbtree'; for a linear model use scikit-learn's.",
        )
    return found  # type: ignore[no-any-return]


def read(
    found: Mapping[str, Any], labels: Sequence[Label] = (), rounds: int | None = None
) -> Forest:
    """The forest of a document.

    Args:
        found: as ``document`` gives it.
        labels: of a classifier; () for 0, 1, ...
        rounds: how many boosting rounds answer; None: all.

    Raises BuildFault for what cannot be packaged, with the way out.
    """
    learner = found["learner"]
    model, weights = _model(learner["gradient_booster"])
    kept = _kept(model, rounds)
    link, meaning = _objective(learner)
    outputs = _outputs(learner["learner_model_param"])
    if meaning == "binary" and outputs > 1:
        raise BuildFault(
            f"the XGBoost model predicts {outputs} labels a row",
            advice="Train one classifier for each label and build one bundle for each.",
        )
    categories = _categories(model, learner)
    sets = Sets()
    trees = [
        _tree(model["trees"][i], int(model["tree_info"][i]), weights[i], categories, sets)
        for i in range(kept)
    ]
    used = {int(c) for tree in trees for c in tree.column[(tree.test == MEMBER) & (tree.yes >= 0)]}
    if meaning == "binary":
        names: Sequence[Label] = labels or (0, 1)
    else:
        names = (labels or tuple(range(outputs))) if meaning == "classes" else ()
    return assemble(
        trees,
        width=int(learner["learner_model_param"]["num_feature"]),
        outputs=outputs,
        base=_base(learner, link, outputs),
        sets=sets.all,
        codes=tuple(codes for codes in categories.values() if codes.column in used),
        link=link,
        labels=tuple(names),
        threshold=HALF if meaning == "binary" else ABOVE_ZERO,
        probabilities=meaning != "value",
        compares="float32",
    )


HALF = float(np.float32(1.788139343e-07))
"""The least float32 margin whose float32 sigmoid is above 0.5, which XGBoost's labels ask for."""


def _model(booster: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[float]]:
    """The trees, and what each one's leaves are multiplied with (DART)."""
    if booster["name"] == "dart":
        return booster["gbtree"]["model"], [float(w) for w in booster["weight_drop"]]
    return booster["model"], [1.0] * len(booster["model"]["trees"])


def _kept(model: Mapping[str, Any], rounds: int | None) -> int:
    ends = model.get("iteration_indptr")
    if rounds is None or not ends:
        return len(model["trees"])
    return int(ends[min(rounds, len(ends) - 1)])


def _objective(learner: Mapping[str, Any]) -> tuple[Link, str]:
    name = learner["objective"]["name"]
    if name not in _OBJECTIVES:
        raise BuildFault(
            f"XGBoost's objective {name!r} cannot be packaged",
            advice="Train with one of: " + ", ".join(sorted(_OBJECTIVES)) + ".",
        )
    return _OBJECTIVES[name]


def _outputs(params: Mapping[str, str]) -> int:
    return max(int(params["num_class"]), int(params.get("num_target", "1")), 1)


def _base(learner: Mapping[str, Any], link: Link, outputs: int) -> Any:
    """The margin that every row starts from; the file has it as an answer, before the link."""
    text = str(learner["learner_model_param"]["base_score"]).strip("[]")
    scores = np.array([float(part) for part in text.split(",")], dtype=np.float32)
    if link == "sigmoid":
        with np.errstate(divide="ignore"):
            scores = -np.log(np.float32(1) / scores - np.float32(1))
    elif link == "exp":
        scores = np.log(scores)
    return np.broadcast_to(scores.astype(np.float64), (outputs,)).copy()


def _categories(model: Mapping[str, Any], learner: Mapping[str, Any]) -> dict[int, Codes]:
    """The codes of every column that the model calls categorical."""
    types = learner.get("feature_types") or []
    stored = stored_categories(learner)
    highest = _highest(model["trees"])
    found = {}
    for column in sorted({*highest, *(i for i, kind in enumerate(types) if kind == "c")}):
        # Without a data frame's categories, raw values are the codes themselves.
        known = stored.get(column) or tuple(range(highest.get(column, -1) + 1))
        rounding: Rounding = "exact" if stored.get(column) else "float32 down"
        texts = tuple(item for item in known if isinstance(item, str))
        found[column] = Codes(
            column, texts or tuple(map(float, known)), text=bool(texts), rounding=rounding
        )
    return found


def _garbled(learner: Mapping[str, Any], column: int) -> BuildFault:
    """XGBoost 3.1 and 3.2 cut the UTF-8 of a column's categories by counts of characters."""
    names = learner.get("feature_names") or []
    name = names[column] if column < len(names) else column
    return BuildFault(
        f"the XGBoost model keeps damaged names of the categories of column {name!r}: where one "
        "has a letter that is not ASCII, it cuts all after it at the wrong place",
        advice="Rename the categories to plain ASCII and train again.",
    )


def _highest(trees: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    """The highest code that a split asks for, by column."""
    found: dict[int, int] = {}
    for tree in trees:
        segments = zip(
            tree.get("categories_nodes", ()), tree.get("categories_segments", ()),
            tree.get("categories_sizes", ()), strict=True,
        )  # fmt: skip
        for node, start, size in segments:
            column = int(tree["split_indices"][node])
            asked = tree["categories"][start : start + size]
            found[column] = max([found.get(column, -1), *asked])
    return found


def stored_categories(learner: Mapping[str, Any]) -> dict[int, tuple[str, ...] | tuple[int, ...]]:
    """By column, the categories that a data frame had in training, in order of their codes.

    Models of XGBoost 3.1 and newer say so. Text is UTF-8 with offsets, as Arrow has it.
    """
    model, _ = _model(learner["gradient_booster"])
    found: dict[int, tuple[str, ...] | tuple[int, ...]] = {}
    for column, stored in enumerate((model.get("cats") or {}).get("enc") or []):
        values = stored.get("values") or []
        if "offsets" in stored:
            data = bytes(value % 256 for value in values)
            if not data.isascii():
                raise _garbled(learner, column)
            texts = tuple(data[a:b].decode() for a, b in pairwise(stored["offsets"]))
            if texts:
                found[column] = texts
        elif values:
            found[column] = tuple(int(value) for value in values)
    return found


def _tree(
    stored: Mapping[str, Any], target: int, weight: float, categories: dict[int, Codes], sets: Sets
) -> Tree:
    if int(stored["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise BuildFault(
            "the trees of this XGBoost model have several values in each leaf",
            advice="Train with multi_strategy='one_output_per_tree', or one model an output.",
        )
    cuts = np.array(stored["split_conditions"], dtype=np.float32)
    left = np.array(stored["left_children"], dtype=np.int64)
    right = np.array(stored["right_children"], dtype=np.int64)
    default_left = np.array(stored["default_left"], dtype=bool)
    column = np.array(stored["split_indices"], dtype=np.int64)
    leaf = left < 0
    member = np.full(len(cuts), -1, dtype=np.int64)
    test = np.full(len(cuts), LT, dtype=np.int64)
    yes, no = left.copy(), right.copy()
    segments = zip(
        stored.get("categories_nodes", ()), stored.get("categories_segments", ()),
        stored.get("categories_sizes", ()), strict=True,
    )  # fmt: skip
    for node, start, size in segments:
        asked = list(stored["categories"][start : start + size])
        if not default_left[node]:
            asked.append(categories[int(column[node])].missing)
        # In the set is right; a category that nobody knew is not in it.
        member[node] = sets.number(asked)
        test[node], yes[node], no[node] = MEMBER, right[node], left[node]
    values = np.where(leaf, cuts, np.float32(0)) * np.float32(weight)
    return Tree(
        column=column, test=test, cut=np.where(test == MEMBER, 0.0, cuts.astype(np.float64)),
        member=member, yes=yes, no=no, missing_yes=default_left & (test == LT),
        values=values.astype(np.float64)[:, None],
        cover=np.array(stored["sum_hessian"], dtype=np.float64), target=target,
    )  # fmt: skip
