"""Smaller forests: leaves rounded to a byte, nodes that ask for nothing taken out, trees pruned.

Every function takes a ``Forest`` and returns a smaller one with the number of nodes that went,
in the forest's own form; nothing is believed of it here, the parity gate judges it.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_pack.trees import merge
from edge_pack.trees.form import Forest

LEVELS = 255
"""Steps of a rounded leaf: from the least to the greatest value, as one byte holds."""
_Floats = NDArray[np.float64]


def merged(forest: Forest) -> tuple[Forest, int]:
    """Without nodes whose two sides end in the same leaf: the same answers, bit for bit.

    Raises BuildFault when there is no such node.
    """
    return _changed(forest, merge.equal_leaves(forest), "merging equal leaves")


def rounded(forest: Forest) -> tuple[Forest, int]:
    """With leaves on 256 levels, and without the nodes that then ask for nothing.

    Levels span what the leaves of one output hold; zero is one of them. The count is of leaves
    that moved and nodes that went. Raises BuildFault when there is none.
    """
    values = forest.values.copy()
    for nodes, outputs in _of_one_output(forest):
        leaves = values[nodes, outputs]
        low, high = min(float(leaves.min()), 0.0), max(float(leaves.max()), 0.0)
        step = (high - low) / (LEVELS - 1)  # one level is spare, so that zero can be one of them
        if step > 0:
            values[nodes, outputs] = np.rint(leaves / step) * step
    moved = int((values != forest.values).any(axis=1).sum())
    if not moved:
        raise BuildFault("rounding leaves changed nothing: they are on 256 levels already")
    found = replace(forest, values=values)
    try:
        smaller, gone = merged(found)
    except BuildFault:
        return found, moved
    return smaller, moved + gone


def _of_one_output(forest: Forest) -> Iterator[tuple[NDArray[np.int64], int]]:
    """The leaves that add to each output, with their column in ``values``."""
    leaves = np.flatnonzero(forest.leaf)
    if forest.values.shape[1] > 1:
        yield from ((leaves, column) for column in range(forest.outputs))
        return
    target = forest.target[forest.tree[leaves]]
    yield from ((leaves[target == output], 0) for output in np.unique(target))


def pruned(forest: Forest, share: float, samples: float) -> tuple[Forest, int]:
    """The first ``share`` of the trees, with nodes that saw under ``samples`` rows as leaves.

    Such a leaf answers with what the rows it saw got on average.

    Args:
        share: over 0, at most 1. Trees that share an output go together, round by round.
        samples: of training rows, or their weight.

    Raises BuildFault when nothing goes, or the library does not say what its nodes saw.
    """
    if not forest.cover.any() and samples > 0:
        raise BuildFault("pruning changed nothing: the model does not say how many rows it saw")
    values = _averages(forest)
    leaf = forest.leaf | (forest.cover < samples)
    # A root stays a question: a tree of one leaf adds the same to every row.
    leaf[forest.roots] = forest.leaf[forest.roots]
    rounds = len(forest.target) // max(len(np.unique(forest.target)), 1)
    kept = max(1, round(rounds * share)) * (len(forest.target) // rounds)
    found = merge.rebuilt(forest, leaf, np.where(leaf[:, None], values, forest.values), kept)
    return _changed(forest, found, "pruning")


def _averages(forest: Forest) -> _Floats:
    """What the leaves under each node say on average, weighted by the rows they saw."""
    values = np.where(forest.leaf[:, None], forest.values, 0.0)
    for node in range(forest.nodes - 1, -1, -1):  # children stand after their parent
        yes, no = forest.yes[node], forest.no[node]
        if yes == node:
            continue
        weights = forest.cover[[yes, no]]
        total = weights.sum()
        shares = weights / total if total > 0 else np.array([0.5, 0.5])
        values[node] = shares[0] * values[yes] + shares[1] * values[no]
    return np.asarray(values)


def _changed(before: Forest, after: Forest, what: str) -> tuple[Forest, int]:
    gone = before.nodes - after.nodes
    if not gone:
        raise BuildFault(f"{what} changed nothing: every node makes a difference")
    return after, gone
