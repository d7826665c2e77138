"""The form of a tree ensemble: what every reader makes, and all that the emitter reads.

Guards: a ``Forest`` says exactly what its original library computes, in float64, with nothing of
ONNX in it; an inconsistent one does not exist, since making it checks it.

Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Rounding = Literal["exact", "toward zero", "float32 down"]
"""What happens to a number before its code is looked up: nothing; its fraction is cut off; it is
rounded to float32 and then down."""

LEAF, LEQ, LT, MEMBER = 0, 1, 2, 3
"""What a node asks: nothing; ``x <= cut``; ``x < cut``; ``code(x)`` is in a set of codes."""

Link = Literal["identity", "sigmoid", "softmax", "exp", "log1p_exp", "signed_square"]
"""From totals to answers, each output by itself but for softmax."""

ABOVE_ZERO = 5e-324
"""``total >= ABOVE_ZERO`` is ``total > 0``: the least float64 above it."""


@dataclass(frozen=True)
class Codes:
    """How one column's raw values become the codes that MEMBER tests ask for.

    A known value's code is its position in ``known``; any other value's is ``unknown``, and a
    missing one's (NaN, None or "") is ``missing``.

    Attributes:
        column: the forest's column that holds these codes.
        known: distinct texts, or distinct finite float64.
        text: whether the raw values are text.
        source: the raw column that is coded, where that is another one: a number may be asked
            for its code in one column and compared with cuts in its own.
        parts: codes of raw columns of text, where this column is their combination: its code
            counts through theirs, the last one fastest; ``known`` is empty.
        rounding: of numbers that are looked up; ``known`` are whole where it is not "exact".
    """

    column: int
    known: tuple[str, ...] | tuple[float, ...]
    text: bool = False
    source: int = -1
    parts: tuple[Codes, ...] = ()
    rounding: Rounding = "exact"

    @property
    def size(self) -> int:
        """How many codes there are."""
        return math.prod(part.size for part in self.parts) if self.parts else len(self.known) + 2

    @property
    def raw(self) -> int:
        """The raw column that is coded."""
        return self.column if self.source < 0 else self.source

    @property
    def unknown(self) -> int:
        """The code of a value that is not known."""
        return len(self.known)

    @property
    def missing(self) -> int:
        """The code of a missing value."""
        return len(self.known) + 1

    def encode(self, values: NDArray[Any]) -> Floats:
        """The codes of a column's raw values; of a combination [rows, parts]."""
        if self.parts:
            joined = np.zeros(len(values))
            for part, column in zip(self.parts, values.T, strict=True):
                joined = joined * part.size + part.encode(column)
            return joined
        where: dict[object, int] = {value: code for code, value in enumerate(self.known)}
        codes = [
            self.missing if _missing(value) else where.get(value, self.unknown)
            for value in self._rounded(values).tolist()
        ]
        return np.array(codes, dtype=np.float64)

    def _rounded(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.rounding == "exact":
            return values
        if self.rounding == "toward zero":
            return np.asarray(np.trunc(values))
        with np.errstate(over="ignore"):
            return np.asarray(np.floor(values.astype(np.float32)))


def _missing(value: object) -> bool:
    return value is None or value == "" or value != value  # noqa: PLR0124 (NaN)


@dataclass(frozen=True, eq=False)
class Forest:
    """A tree ensemble. The nodes of all trees stand one after the other, a tree's root first.

    Attributes:
        width: columns of a row.
        roots: int64 [trees], rising from 0: tree t is the nodes from roots[t] up to the next root.
        column: int64 [nodes], which column a node asks; -1 in a leaf.
        test: int64 [nodes], LEAF, LEQ, LT or MEMBER.
        cut: float64 [nodes], the value that LEQ and LT compare with; 0 elsewhere.
        member: int64 [nodes], index into ``sets`` where MEMBER asks; -1 elsewhere.
        sets: sets of codes, each sorted and without doubles. Whether unknown and missing values
            belong is said by ``Codes.unknown`` and ``Codes.missing`` in the set.
        codes: of every column that MEMBER tests ask.
        yes, no: int64 [nodes], the node that follows; after the asking one and in its tree; a
            leaf's are itself.
        missing_yes: bool [nodes], whether NaN follows yes in LEQ and LT.
        values: float64 [nodes, w], what a leaf adds: to every output, or with w = 1 to the
            output ``target`` of its tree. In other nodes 0 or what the library kept there.
        target: int64 [trees], 0 where w is ``outputs``.
        outputs: how many totals a row has.
        base: float64 [outputs]; a row's totals are (sum of leaves) / divisor + base.
        divisor: the number of trees where they are averaged, else 1.
        link: from totals to answers.
        labels: the classes of a classifier or outlier detector, else ().
        threshold: of two labels and one output, a total from here on means the second one.
        probabilities: whether the answers of a classifier are probabilities a label.
        compares: how the original compares: "float32" rounds the value of a column first.
        cover: float64 [nodes], training rows or weight that a node saw; 0 where unknown.
    """

    width: int
    roots: Ints
    column: Ints
    test: Ints
    cut: Floats
    yes: Ints
    no: Ints
    missing_yes: NDArray[np.bool_]
    values: Floats
    target: Ints
    outputs: int
    base: Floats
    member: Ints
    cover: Floats
    divisor: float = 1.0
    sets: tuple[tuple[int, ...], ...] = ()
    codes: tuple[Codes, ...] = ()
    link: Link = "identity"
    labels: tuple[Label, ...] = ()
    threshold: float = ABOVE_ZERO
    probabilities: bool = False
    compares: Literal["float32", "float64"] = "float64"

    def __post_init__(self) -> None:
        _check(self)
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)

    @property
    def nodes(self) -> int:
        """Nodes of all trees, leaves included."""
        return len(self.column)

    @property
    def trees(self) -> int:
        """How many trees."""
        return len(self.roots)

    @property
    def leaf(self) -> NDArray[np.bool_]:
        """bool [nodes]."""
        return self.column < 0

    @property
    def tree(self) -> Ints:
        """int64 [nodes], the tree of each node."""
        sizes = np.diff(np.append(self.roots, self.nodes))
        return np.repeat(np.arange(self.trees), sizes)


def totals(forest: Forest, rows: Floats) -> Floats:
    """What the trees add up to, [rows, outputs]: slow and plain, to test everything else by.

    Args:
        rows: float64 [rows, width]; a column with ``Codes`` holds codes.
    """
    sums = np.zeros((len(rows), forest.outputs))
    everyone = np.arange(len(rows))
    for tree, root in enumerate(forest.roots):
        node = np.full(len(rows), root)
        while not forest.leaf[node].all():
            node = np.where(_passes(forest, node, rows[everyone, forest.column[node]]),
                            forest.yes[node], forest.no[node])  # fmt: skip
        if forest.values.shape[1] == forest.outputs:
            sums += forest.values[node]
        else:
            sums[:, forest.target[tree]] += forest.values[node, 0]
    return np.asarray(sums / forest.divisor + forest.base)


def _passes(forest: Forest, node: Ints, values: Floats) -> NDArray[np.bool_]:
    if forest.compares == "float32":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32).astype(np.float64)
    asked, cut = forest.test[node], forest.cut[node]
    passed = np.where(asked == LEQ, values <= cut, values < cut)
    passed = np.where(np.isnan(values), forest.missing_yes[node], passed)
    for row in np.flatnonzero(asked == MEMBER):
        passed[row] = int(values[row]) in forest.sets[forest.member[node[row]]]
    return passed


def answers(forest: Forest, rows: Floats) -> Floats:
    """Probabilities [rows, labels] of a classifier, else values [rows, outputs]."""
    linked: Floats = LINKS[forest.link](totals(forest, rows))
    if len(forest.labels) == 2 and forest.outputs == 1:
        return np.concatenate([1 - linked, linked], axis=1)
    return linked


def winners(forest: Forest, rows: Floats) -> Ints:
    """Index of the label of each row: the first of the largest, or by the threshold."""
    found = totals(forest, rows)
    if forest.outputs == 1:
        return np.asarray(found[:, 0] >= forest.threshold, dtype=np.int64)
    return np.asarray(found.argmax(axis=1))


def _softmax(found: Floats) -> Floats:
    powers = np.exp(found - found.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


LINKS: dict[Link, Any] = {
    "identity": np.asarray,
    "sigmoid": lambda found: 0.5 + 0.5 * np.tanh(found / 2),
    "softmax": _softmax,
    "exp": np.exp,
    "log1p_exp": lambda found: np.logaddexp(0, found),
    "signed_square": lambda found: np.sign(found) * found**2,
}


def _check(forest: Forest) -> None:
    nodes, trees = forest.nodes, forest.trees
    leaf, index = forest.leaf, np.arange(nodes)
    ends = np.append(forest.roots[1:], nodes)
    of_node = ("test", "cut", "yes", "no", "missing_yes", "values", "member", "cover")
    if any(len(getattr(forest, name)) != nodes for name in of_node) or not nodes:
        raise _broken("its arrays differ in length, or it has no node")
    if forest.roots[0] != 0 or (ends <= forest.roots).any() or len(forest.target) != trees:
        raise _broken("its roots do not rise from 0, or its targets are not one a tree")
    if not np.array_equal(leaf, forest.test == LEAF) or forest.column.max() >= forest.width:
        raise _broken("a column is out of range, or a leaf asks")
    last = np.repeat(ends, ends - forest.roots)
    for child in (forest.yes, forest.no):
        if (child[leaf] != index[leaf]).any():
            raise _broken("a leaf leads on")
        if ((child <= index) | (child >= last))[~leaf].any():
            raise _broken("a node leads back, or out of its tree")
    followers = np.concatenate([forest.yes[~leaf], forest.no[~leaf], forest.roots])
    if len(followers) != nodes or len(np.unique(followers)) != nodes:
        raise _broken("a node has no parent, or two")
    _check_values(forest)
    _check_codes(forest)


def _check_values(forest: Forest) -> None:
    width = forest.values.shape[1]
    if np.isnan(forest.cut).any() or not np.isfinite(forest.values[forest.leaf]).all():
        raise _broken("a cut or a leaf is not a number")
    if width not in (1, forest.outputs) or len(forest.base) != forest.outputs:
        raise _broken(f"its leaves have {width} values for {forest.outputs} outputs")
    if (forest.target < 0).any() or (forest.target + width > forest.outputs).any():
        raise _broken("a tree's target is no output")
    if len(forest.labels) not in (0, 2) and forest.outputs != len(forest.labels):
        raise _broken(f"it has {forest.outputs} outputs for {len(forest.labels)} labels")


def _check_codes(forest: Forest) -> None:
    asks = forest.test == MEMBER
    if (forest.member[asks] < 0).any() or forest.member.max() >= len(forest.sets):
        raise _broken("a node asks for a set that is not there")
    coded = {codes.column for codes in forest.codes}
    if len(coded) != len(forest.codes) or coded != set(forest.column[asks].tolist()):
        raise _broken("the columns with codes are not those that MEMBER asks")
    if np.isin(forest.column[~asks], sorted(coded)).any():
        raise _broken("a column with codes is compared with a cut")
    if any(not part.text or part.parts for codes in forest.codes for part in codes.parts):
        raise _broken("a combination is not one of columns of text")


def _broken(what: str) -> BuildFault:
    return BuildFault(
        f"the tree ensemble is not consistent: {what}",
        advice="Fit or save the model again with its library; if that does not help, report it.",
    )
