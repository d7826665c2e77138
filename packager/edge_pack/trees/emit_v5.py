"""Trees as ai.onnx.ml 5 has them: ``TreeEnsemble``, which runtimes run from 1.21 on.

Guards: the runtime adds up in float64 and hands that on, so totals are rounded once, after the
base, and a label is chosen before. What releases answer wrong is not emitted: a root with a leaf
and a node of one number (1.21.1 and 1.23.2 take it for a leaf, onnxruntime issue 24679), a root
whose two sides are one leaf (1.21.1 to 1.24.1 read another), and BRANCH_MEMBER (to 1.31.1).

Pure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_pack.trees.form import Forest
from edge_pack.trees.graph import FLOAT, Graph, named
from edge_pack.trees.merge import one_output_a_tree

_SUM = 1
_LEQ = 0
"""Aggregate and mode of the operator's own enumerations."""


def totals(graph: Graph, forest: Forest, rows: str) -> str:
    """The totals [rows, outputs], added up in float64 and rounded once."""
    return graph.add("Cast", [_divided(graph, forest, _sums(graph, forest, rows))], to=FLOAT)


def many_labels(graph: Graph, forest: Forest, rows: str) -> str:
    """Totals as ``totals``, and the label: the first of the largest sums of float64."""
    sums = _sums(graph, forest, rows)
    named(graph, forest.labels, ["ArgMax", [sums]])
    return graph.add("Cast", [_divided(graph, forest, sums)], to=FLOAT)


def _sums(graph: Graph, forest: Forest, rows: str) -> str:
    """What the leaves and ``divisor`` times the base add up to, float64 [rows, outputs]."""
    output = graph.unused("sums")
    graph.node("TreeEnsemble", [rows], [output], _trees(graph, one_output_a_tree(forest)))
    if not forest.base.any():
        return output
    base = graph.weight(forest.base * forest.divisor, "base")
    return graph.add("Add", [output, base])


def _divided(graph: Graph, forest: Forest, sums: str) -> str:
    if forest.divisor == 1.0:
        return sums
    return graph.add("Div", [sums, graph.weight(np.array(forest.divisor), "divisor")])


def _trees(graph: Graph, forest: Forest) -> dict[str, Any]:
    """Nodes that ask, depth first, and apart from them the leaves; a lone leaf is there twice."""
    leaf, tree = forest.leaf, forest.tree
    kept = ~leaf
    kept[forest.roots] = True
    at = np.flatnonzero(kept)
    place = np.where(leaf, np.cumsum(leaf), np.cumsum(kept)) - 1
    yes, no = forest.yes[at], forest.no[at]
    spare = _spare(forest, place)
    place = place + spare * leaf
    alone = leaf[at]
    leaves = np.concatenate([np.flatnonzero(leaf), at[alone]])
    after = place[no]
    after[alone] = spare + len(leaves) - alone.sum() + np.arange(alone.sum())
    found = {
        "aggregate_function": _SUM,
        "n_targets": forest.outputs,
        "tree_roots": (np.cumsum(kept) - 1)[forest.roots],
        "nodes_featureids": np.where(alone, 0, forest.column[at]),
        "nodes_modes": graph.array(np.full(len(at), _LEQ, dtype=np.uint8)),
        "nodes_splits": graph.array(forest.cut[at]),
        "nodes_truenodeids": place[yes],
        "nodes_falsenodeids": after,
        "nodes_trueleafs": leaf[yes].astype(np.int64),
        "nodes_falseleafs": leaf[no].astype(np.int64),
        "leaf_targetids": np.pad(forest.target[tree[leaves]], (spare, 0)),
        "leaf_weights": graph.array(np.pad(forest.values[leaves, 0] + 0.0, (spare, 0))),
    }
    if forest.missing_yes.any():
        found["nodes_missing_value_tracks_true"] = forest.missing_yes[at].astype(np.int64)
    return found


def _spare(forest: Forest, place: Any) -> int:
    """How many leaves that nobody reaches come first, so that no root is taken for a leaf."""
    yes, no = forest.yes[forest.roots], forest.no[forest.roots]
    mixed = forest.leaf[yes] != forest.leaf[no]
    ahead = np.where(forest.leaf[yes], place[no] - place[yes], place[yes] - place[no])[mixed]
    spare = 0
    while spare in ahead:
        spare += 1
    return spare
