"""Puts the trees of a booster's file into one ``Forest``, numbered alike for every library.

Guards: nodes stand depth first with the "yes" side first, whatever order their library wrote them
in, so that equal trees have equal bytes and travel as compactly; nodes that no path reaches (pruned
ones stay in XGBoost's files) are left out.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_pack.trees.form import LEAF, Floats, Forest, Ints


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree in its library's own numbering; node 0 is the root.

    Attributes: as of ``Forest``, but that ``yes`` and ``no`` are any nodes of this tree, negative
    in a leaf; ``values``: float64 [nodes, w]; ``target``: the output it adds to.
    """

    column: Ints
    test: Ints
    cut: Floats
    member: Ints
    yes: Ints
    no: Ints
    missing_yes: NDArray[np.bool_]
    values: Floats
    cover: Floats
    target: int = 0


def assemble(trees: Sequence[Tree], **meaning: Any) -> Forest:
    """The trees as one forest. ``meaning``: the other attributes of ``Forest``.

    Raises BuildFault for a tree that is none (a node with two parents, or out of range).
    """
    if not trees:
        raise BuildFault(
            "the model has no trees", advice="Train it for at least one round and save it again."
        )
    orders = [_preorder(tree) for tree in trees]
    sizes = np.array([len(order) for order in orders])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    parts = [
        _renumbered(tree, order, int(root))
        for tree, order, root in zip(trees, orders, roots, strict=True)
    ]
    joined: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts]) for name in parts[0]
    }
    targets = np.array([tree.target for tree in trees], dtype=np.int64)
    return Forest(roots=roots, target=targets, **joined, **meaning)


def _preorder(tree: Tree) -> Ints:
    """The nodes that are reached, depth first, "yes" first."""
    yes, no = tree.yes.tolist(), tree.no.tolist()
    order: list[int] = []
    stack = [0]
    while stack:
        node = stack.pop()
        order.append(node)
        if len(order) > len(yes) or not node < len(yes):
            raise BuildFault(
                "a tree's nodes lead in a circle or out of it",
                advice="The file is damaged: save the model again.",
            )
        if yes[node] >= 0:
            stack += (no[node], yes[node])
    return np.array(order, dtype=np.int64)


def _renumbered(tree: Tree, order: Ints, root: int) -> dict[str, NDArray[Any]]:
    place = np.full(len(tree.yes), -1, dtype=np.int64)
    place[order] = np.arange(len(order)) + root
    here = place[order]
    leaf = tree.yes[order] < 0
    return {
        "column": np.where(leaf, -1, tree.column[order]),
        "test": np.where(leaf, LEAF, tree.test[order]),
        "cut": np.where(leaf, 0.0, tree.cut[order]),
        "member": np.where(leaf, -1, tree.member[order]),
        "yes": np.where(leaf, here, place[tree.yes[order]]),
        "no": np.where(leaf, here, place[tree.no[order]]),
        "missing_yes": tree.missing_yes[order] & ~leaf,
        "values": np.where(leaf[:, None], tree.values[order], 0.0),
        "cover": tree.cover[order].astype(np.float64),
    }


class Sets:
    """Sets of codes, each kept once, numbered as they came."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, ...], int] = {}

    def number(self, codes: Sequence[int]) -> int:
        """The number of the set of these codes."""
        key = tuple(sorted(set(codes)))
        return self._found.setdefault(key, len(self._found))

    @property
    def all(self) -> tuple[tuple[int, ...], ...]:
        """By number."""
        return tuple(self._found)
