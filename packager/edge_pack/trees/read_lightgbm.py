"""Reads LightGBM's text format (version v3 and v4) into a ``Forest``.

Guards: LightGBM compares ``value <= threshold`` in float64; what NaN and zero do is a property of
each node (``Tree::NumericalDecision`` and ``CategoricalDecision`` in its include/LightGBM/tree.h,
of which the latter cuts off a code's fraction);
what one of its leaves or objectives does that is not understood here is refused.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label
from edge_pack.trees.assemble import Sets, Tree, assemble
from edge_pack.trees.form import ABOVE_ZERO, LEQ, MEMBER, Codes, Forest, Link

_VALUES: dict[str, Link] = {
    **dict.fromkeys(
        ("regression", "regression_l2", "regression_l1", "huber", "fair", "quantile", "mape",
         "lambdarank", "rank_xendcg", "custom", "none"), "identity",
    ),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), "exp"),
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "log1p_exp",
}  # fmt: skip
"""Objectives that answer a number -> link (ConvertOutput in src/objective of LightGBM 4)."""

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2
"""Bits of ``decision_type``: bit 0, bit 1, and the two above them (tree.h)."""


@dataclass(frozen=True)
class Document:
    """A model file in its parts.

    Attributes:
        head: the settings of the whole model. trees: the fields of each tree, as text.
        categories: by column that pandas held as a category: its values in order of their codes.
        parameters: what it was trained with.
    """

    head: Mapping[str, str]
    trees: tuple[Mapping[str, str], ...]
    categories: tuple[tuple[Any, ...], ...]
    parameters: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns; LightGBM makes some up where training had none."""
        return tuple(self.head["feature_names"].split())

    @property
    def classes(self) -> int:
        """How many totals a row has."""
        return int(self.head["num_tree_per_iteration"])


def document(text: str) -> Document:
    """The parts of a model file. Raises BuildFault when it is not LightGBM's."""
    head_text, _, rest = text.partition("\nTree=0\n")
    body, ended, tail = rest.partition("\nend of trees")
    try:
        head = _fields(head_text)
        head["feature_names"], int(head["max_feature_idx"]), int(head["num_tree_per_iteration"])
        if not head_text.startswith("tree") or (rest and not ended):
            raise KeyError("tree")
        trees = [_fields(part.partition("\n")[2]) for part in ("0\n" + body).split("\nTree=")]
    except (KeyError, ValueError) as error:
        raise BuildFault(
            "the model is not one of LightGBM's text files",
            advice="Save it with Booster.save_model of LightGBM 4.",
        ) from error
    _, _, after = tail.partition("pandas_categorical:")
    parameters = {}
    for line in tail.splitlines():
        if line.startswith("[") and line.endswith("]"):
            name, _, value = line[1:-1].partition(": ")
            parameters[name] = value
    stored = json.loads(after.splitlines()[0]) if after.strip() else None
    return Document(head, tuple(trees) if rest else (), tuple(map(tuple, stored or ())), parameters)


def _fields(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.splitlines())
    return {name: value for name, found, value in lines if found} | (
        {"average_output": "1"} if "average_output" in text.splitlines() else {}
    )


def objective(found: Document) -> tuple[Link, str, float]:
    """Link, what the totals mean (binary, classes or value), and the sigmoid's steepness.

    Raises BuildFault for an objective that cannot be packaged.
    """
    words = found.head.get("objective", "none").split()
    settings = dict(word.split(":", 1) for word in words if ":" in word)
    name, steep = words[0] if words else "none", float(settings.get("sigmoid", "1"))
    if name == "binary":
        return "sigmoid", "binary", steep
    if name in ("multiclass", "multiclassova"):
        return (
            ("softmax", "classes", 1.0) if name == "multiclass" else ("sigmoid", "classes", steep)
        )
    if name in _VALUES:
        link: Link = "signed_square" if "sqrt" in words else _VALUES[name]
        return link, "value", 1.0
    raise BuildFault(
        f"LightGBM's objective {name!r} cannot be packaged",
        advice="Train with one of: binary, multiclass, multiclassova, "
        + ", ".join(sorted(_VALUES)) + ".",
    )  # fmt: skip


def read(found: Document, labels: Sequence[Label] = ()) -> Forest:
    """The forest of a document. ``labels``: of a classifier; () for 0, 1, ...

    Raises BuildFault for what cannot be packaged, with the way out.
    """
    link, meaning, steep = objective(found)
    outputs = found.classes
    averaged = "average_output" in found.head
    sets = Sets()
    codes = category_codes(found)
    trees = [
        _tree(tree, number % outputs, steep, codes, sets) for number, tree in enumerate(found.trees)
    ]
    asked = {int(c) for tree in trees for c in tree.column[(tree.test == MEMBER) & (tree.yes >= 0)]}
    names: Sequence[Label] = ()
    if meaning != "value":
        names = labels or tuple(range(max(outputs, 2)))
    return assemble(
        trees,
        width=int(found.head["max_feature_idx"]) + 1,
        outputs=outputs,
        base=np.zeros(outputs),
        divisor=float(len(trees) // outputs) if averaged else 1.0,
        sets=sets.all,
        codes=tuple(codes[column] for column in sorted(asked)),
        link=link,
        labels=tuple(names),
        threshold=ABOVE_ZERO,
        probabilities=meaning != "value",
        compares="float64",
    )


def category_codes(found: Document) -> dict[int, Codes]:
    """The codes of every column that a split asks a category of; raw values where none are kept."""
    stored = stored_categories(found)
    codes = {}
    for column, top in sorted(_highest(found.trees).items()):
        known = stored.get(column, tuple(range(top + 1)))
        text = any(isinstance(item, str) for item in known)
        codes[column] = Codes(
            column,
            tuple(map(str, known)) if text else tuple(map(float, known)),
            text,
            rounding="exact" if column in stored else "toward zero",
        )
    return codes


def stored_categories(found: Document) -> dict[int, tuple[Any, ...]]:
    """By column that pandas held as a category, its values in order of their codes.

    The file lists the values, column after column, and elsewhere which columns are categorical:
    in its parameters, and in ``feature_infos`` ("3:0:1" where others have "[low:high]").

    Raises BuildFault when those do not agree.
    """
    if not found.categories:
        return {}
    given = found.parameters.get("categorical_feature", "")
    columns = sorted({int(part) for part in given.split(",") if part.strip().isdigit()})
    if len(columns) != len(found.categories):
        infos = found.head.get("feature_infos", "").split()
        columns = [i for i, info in enumerate(infos) if info != "none" and info[:1] != "["]
    if len(columns) != len(found.categories):
        raise BuildFault(
            f"the LightGBM model lists the categories of {len(found.categories)} columns and has "
            f"{len(columns)} categorical ones",
            advice="Train it on a data frame in which every categorical column is of dtype "
            "category, and no other.",
        )
    return dict(zip(columns, found.categories, strict=True))


def check_whole(text: str) -> None:
    """Raise BuildFault unless the trees are as long as the head says, and the end is there."""
    head = document(text).head
    body = text[text.index("\nTree=0\n") + 1 :] if "\nTree=0\n" in text else ""
    sizes = [int(size) for size in head.get("tree_sizes", "").split()]
    last = text.rstrip().rpartition("\n")[2]
    ended = last == "end of parameters" or last.startswith("pandas_categorical:")
    if sum(sizes) != body.encode().find(b"end of trees") or not (ended and text.endswith("\n")):
        raise BuildFault(
            "the file of LightGBM is cut off or changed",
            advice="Save it again with Booster.save_model.",
        )


def _highest(trees: Sequence[Mapping[str, str]]) -> dict[int, int]:
    """The highest code that a split asks for, by column."""
    found: dict[int, int] = {}
    for tree in trees:
        if int(tree.get("num_cat", "0")) == 0:
            continue
        kinds, columns = _ints(tree, "decision_type"), _ints(tree, "split_feature")
        thresholds = _floats(tree, "threshold")
        for node in np.flatnonzero(kinds & _CATEGORICAL):
            codes = _codes(tree, int(thresholds[node]))
            column = int(columns[node])
            found[column] = max([found.get(column, -1), *codes])
    return found


def _tree(
    stored: Mapping[str, str], target: int, steep: float, codes: Mapping[int, Codes], sets: Sets
) -> Tree:
    if stored.get("is_linear", "0") != "0":
        raise BuildFault(
            "the leaves of this LightGBM model hold linear models (linear_tree)",
            advice="Train with linear_tree=False.",
        )
    leaves = _floats(stored, "leaf_value") * steep
    splits = int(stored["num_leaves"]) - 1
    if splits == 0:
        leaves = leaves[:1]
    inner = _Nodes(stored) if splits else None
    filled = len(leaves)
    column = np.full(splits + filled, -1, dtype=np.int64)
    test, member = np.full(splits + filled, LEQ), np.full(splits + filled, -1)
    cut = np.zeros(splits + filled)
    yes, no = np.full(splits + filled, -1), np.full(splits + filled, -1)
    missing_yes = np.zeros(splits + filled, dtype=bool)
    if inner is not None:
        column[:splits], cut[:splits] = inner.column, inner.cut
        yes[:splits] = np.where(inner.left >= 0, inner.left, splits + ~inner.left)
        no[:splits] = np.where(inner.right >= 0, inner.right, splits + ~inner.right)
        missing_yes[:splits] = inner.missing_left
        for node in np.flatnonzero(inner.categorical):
            asked = _codes(stored, int(inner.cut[node]))
            within = len(codes[int(inner.column[node])].known)
            test[node], cut[node] = MEMBER, 0.0
            member[node] = sets.number([code for code in asked if code < within])
            missing_yes[node] = False
    values = np.zeros((splits + filled, 1))
    values[splits:, 0] = leaves
    cover = np.concatenate([_counts(stored, "internal_count", splits),
                            _counts(stored, "leaf_count", filled)])  # fmt: skip
    return Tree(column, test, cut, member, yes, no, missing_yes, values, cover, target)


class _Nodes:
    """The inner nodes of one tree, as arrays."""

    def __init__(self, stored: Mapping[str, str]) -> None:
        self.column = _ints(stored, "split_feature")
        self.cut = _floats(stored, "threshold")
        self.left, self.right = _ints(stored, "left_child"), _ints(stored, "right_child")
        kinds = _ints(stored, "decision_type")
        self.categorical = (kinds & _CATEGORICAL).astype(bool)
        missing = (kinds >> 2) & 3
        default_left = (kinds & _DEFAULT_LEFT).astype(bool)
        if ((missing == _MISSING_ZERO) & ~self.categorical).any():
            raise BuildFault(
                "this LightGBM model takes zero for missing (zero_as_missing)",
                advice="Train with zero_as_missing=False and leave missing values empty.",
            )
        # Without a side for NaN, LightGBM takes it for 0.
        self.missing_left: NDArray[np.bool_] = np.where(
            missing == _MISSING_NAN, default_left, self.cut >= 0
        )


def _codes(stored: Mapping[str, str], number: int) -> list[int]:
    """The codes in a tree's set: words of 32 bits, lowest first."""
    ends, words = _ints(stored, "cat_boundaries"), _ints(stored, "cat_threshold")
    found = []
    for place, word in enumerate(words[ends[number] : ends[number + 1]].tolist()):
        found += [32 * place + bit for bit in range(32) if word >> bit & 1]
    return found


def _ints(stored: Mapping[str, str], name: str) -> NDArray[np.int64]:
    return np.array(stored[name].split(), dtype=np.int64)


def _floats(stored: Mapping[str, str], name: str) -> NDArray[np.float64]:
    return np.array([float(word) for word in stored[name].split()], dtype=np.float64)


def _counts(stored: Mapping[str, str], name: str, length: int) -> NDArray[np.float64]:
    found = np.array(stored.get(name, "").split(), dtype=np.float64)
    return found if len(found) == length else np.zeros(length)
