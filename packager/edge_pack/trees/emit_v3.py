"""Trees as ai.onnx.ml 3 has them, which every runtime since 1.15 runs.

Guards: the runtime adds up in float64 and rounds once; of several labels its classifier chooses
before that.

Pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.trees.form import Forest, Ints
from edge_pack.trees.graph import LABEL, Graph, label_array


def many_labels(graph: Graph, forest: Forest, rows: str) -> str:
    """The classifier node chooses among totals of float64, the first of the largest."""
    labels = label_array(forest.labels)
    text = labels.dtype == object
    names = {f"classlabels_{'strings' if text else 'int64s'}": labels.tolist()}
    scores = graph.unused("scores")
    trees = replace(forest, base=forest.base * forest.divisor)
    graph.node("TreeEnsembleClassifier", [rows], [LABEL, scores],
               {**_nodes(graph, trees), **_leaves(graph, trees, "class"), **names})  # fmt: skip
    if forest.divisor == 1.0:
        return scores
    divisor = graph.weight(np.array(forest.divisor, np.float32), "trees")
    return graph.add("Div", [scores, divisor])


def totals(graph: Graph, forest: Forest, rows: str) -> str:
    """The totals [rows, outputs], added up in float64 and rounded once."""
    averaged = forest.divisor == forest.trees and forest.trees > 1
    if not averaged and forest.divisor != 1.0:
        forest = replace(forest, values=forest.values / forest.divisor)
    output = graph.unused("totals")
    graph.node("TreeEnsembleRegressor", [rows], [output], {
        **_nodes(graph, forest),
        **_leaves(graph, forest, "target"),
        "n_targets": forest.outputs,
        "aggregate_function": "AVERAGE" if averaged else "SUM",
    })  # fmt: skip
    return output


def _nodes(graph: Graph, forest: Forest) -> dict[str, Any]:
    tree = forest.tree
    first = forest.roots[tree]
    leaf = forest.leaf
    modes = np.where(leaf, "LEAF", "BRANCH_LEQ")
    found: dict[str, Any] = {
        "nodes_treeids": tree,
        "nodes_nodeids": np.arange(forest.nodes) - first,
        "nodes_featureids": np.where(leaf, 0, forest.column),
        "nodes_modes": modes.tolist(),
        "nodes_truenodeids": np.where(leaf, 0, forest.yes - first),
        "nodes_falsenodeids": np.where(leaf, 0, forest.no - first),
        "nodes_values_as_tensor": graph.array(forest.cut),
    }
    if forest.missing_yes.any():
        found["nodes_missing_value_tracks_true"] = forest.missing_yes.astype(np.int64)
    return found


def _leaves(graph: Graph, forest: Forest, prefix: str) -> dict[str, Any]:
    """What each leaf adds to which output; zeros are left out where only votes are counted."""
    at = np.flatnonzero(forest.leaf)
    tree = forest.tree[at]
    values = forest.values[at]
    if values.shape[1] == 1:
        leaf, output = np.arange(len(at)), forest.target[tree]
    else:
        votes = bool((values >= 0).all()) and not forest.base.any()
        kept = (values != 0) if votes else np.ones(values.shape, dtype=bool)
        kept[:, 0] |= ~kept.any(axis=1)
        leaf, output = np.nonzero(kept)
    weights = values[leaf, output if values.shape[1] > 1 else 0] + 0.0
    leaf, output, weights = _every_output(forest, tree, leaf, output, weights)
    found = {
        f"{prefix}_treeids": tree[leaf],
        f"{prefix}_nodeids": (at - forest.roots[tree])[leaf],
        f"{prefix}_ids": output,
        f"{prefix}_weights_as_tensor": graph.array(weights),
    }
    if forest.base.any():
        found["base_values_as_tensor"] = graph.array(forest.base)
    return found


def _every_output(
    forest: Forest, tree: Ints, *entries: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The runtime drops the base of an output that no leaf adds to: the first tree adds 0 to it."""
    leaf, output, weights = entries
    served = np.unique(output)
    idle = np.setdiff1d(np.arange(forest.outputs), served) if forest.base.any() else served[:0]
    first = np.flatnonzero(tree == 0)
    leaf = np.concatenate([leaf, np.repeat(first, len(idle))])
    output = np.concatenate([output, np.tile(idle, len(first))]).astype(np.int64)
    weights = np.concatenate([weights, np.zeros(len(first) * len(idle))])
    order = np.lexsort((output, leaf))
    return leaf[order], output[order], weights[order]
