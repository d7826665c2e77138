"""Forests without the nodes that make no difference, and the same trees for each output alone.

Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.trees.form import LEAF, MEMBER, Floats, Forest


def equal_leaves(forest: Forest) -> Forest:
    """Without nodes whose two sides end in the same leaf: the same answers, bit for bit."""
    leaf, values = forest.leaf.copy(), forest.values.copy()
    while True:
        same = ~leaf & leaf[forest.yes] & leaf[forest.no]
        where = np.flatnonzero(same)
        equal = (values[forest.yes[where]] == values[forest.no[where]]).all(axis=1)
        where = where[equal]
        if not where.size:
            break
        values[where] = values[forest.yes[where]]
        leaf[where] = True
    return rebuilt(forest, leaf, values)


def one_output_a_tree(forest: Forest) -> Forest:
    """Each tree once for every output that its leaves add to, without what that one never asks.

    The same totals, bit for bit: an output's leaves are added up in the order of the trees.
    """
    copies = forest.values.shape[1]
    if copies == 1:
        return forest
    shift = np.repeat(np.arange(copies) * forest.nodes, forest.nodes)
    tiled: dict[str, Any] = {
        name: np.tile(getattr(forest, name), copies)
        for name in ("column", "test", "cut", "missing_yes", "member", "cover")
    }
    apart = replace(
        forest,
        **tiled,
        roots=np.concatenate([forest.roots + at * forest.nodes for at in range(copies)]),
        yes=np.tile(forest.yes, copies) + shift,
        no=np.tile(forest.no, copies) + shift,
        values=forest.values.T.reshape(-1, 1),
        target=np.repeat(np.arange(copies), forest.trees),
    )
    return equal_leaves(apart)


def rebuilt(
    forest: Forest, leaf: NDArray[np.bool_], values: Floats, trees: int | None = None
) -> Forest:
    """The first ``trees`` with the nodes that are reached when every ``leaf`` is one."""
    roots = forest.roots[:trees]
    kept = np.zeros(forest.nodes, dtype=bool)
    front = roots
    while front.size:
        kept[front] = True
        asking = front[~leaf[front]]
        front = np.concatenate([forest.yes[asking], forest.no[asking]])
    where = np.cumsum(kept) - 1
    index, leaf = where[kept], leaf[kept]
    test = np.where(leaf, LEAF, forest.test[kept])
    column = np.where(leaf, -1, forest.column[kept])
    member = np.where(leaf, -1, forest.member[kept])
    asked = set(column[test == MEMBER].tolist())
    averaged = forest.divisor != 1
    return replace(
        forest,
        roots=where[roots],
        target=forest.target[:trees],
        column=column,
        test=test,
        member=member,
        cut=np.where(leaf, 0.0, forest.cut[kept]),
        missing_yes=np.where(leaf, False, forest.missing_yes[kept]),
        yes=np.where(leaf, index, where[forest.yes[kept]]),
        no=np.where(leaf, index, where[forest.no[kept]]),
        values=values[kept],
        cover=forest.cover[kept],
        codes=tuple(codes for codes in forest.codes if codes.column in asked),
        divisor=forest.divisor * len(roots) / forest.trees if averaged else 1.0,
    )
