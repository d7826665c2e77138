"""Forests count whole votes: a tie stays a tie in float32.

The stock conversion gives each leaf its share divided by the number of trees and lets the runtime
add those up in float32, where ten times 0.05 and ten times 0.05 in another order differ in the
last bit. A tie, which scikit-learn gives to the first label, then falls either way: 27 of 4,262
rows of a two-label forest of 20 trees. Leaves that carry their undivided share add up without
rounding (pure leaves are 0 and 1), and one division at the end gives the same probabilities.

Pure: edits a ModelProto in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_pack.extras import need

_TOLERANCE = 1e-5
"""Relative; the sum of a leaf's float32 shares is within 1e-6 of the whole."""


def count_whole(proto: Any) -> int:
    """Undivide the leaves of every forest that averages its trees; how many forests there were."""
    changed = 0
    for position, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type == "TreeEnsembleClassifier" and node.domain == "ai.onnx.ml":
            trees = _averaged_trees(node)
            if trees > 1:
                _undivide(proto.graph, position, node, trees)
                changed += 1
    return changed


def _averaged_trees(node: Any) -> int:
    """How many trees a node averages; 0 when it does something else, such as boosting."""
    fields = {attribute.name: attribute for attribute in node.attribute}
    post = fields["post_transform"].s if "post_transform" in fields else b"NONE"
    if post != b"NONE" or "base_values" in fields or "class_weights" not in fields:
        return 0
    trees, _, weights = _leaves(fields)
    if weights.min() < 0 or _labels(fields) < 2:
        return 0
    totals = weights.sum(axis=1) * trees
    whole = totals <= 1 + _TOLERANCE if _one_column(fields) else np.abs(totals - 1) < _TOLERANCE
    return trees if bool(whole.all()) else 0


def _labels(fields: dict[str, Any]) -> int:
    """How many labels the node tells apart."""
    return sum(
        len(fields[name].ints or fields[name].strings)
        for name in ("classlabels_int64s", "classlabels_strings")
        if name in fields
    )


def _one_column(fields: dict[str, Any]) -> bool:
    """Of two labels only the second's share is stored, as the runtime allows."""
    return _labels(fields) == 2 and len(set(fields["class_ids"].ints)) == 1


def _leaves(fields: dict[str, Any]) -> tuple[int, NDArray[np.int64], NDArray[np.float64]]:
    """Number of trees, (tree, node) of each leaf [leaves, 2], shares [leaves, columns]."""
    tree_ids = np.array(fields["class_treeids"].ints)
    node_ids = np.array(fields["class_nodeids"].ints)
    stride = int(node_ids.max()) + 1
    keys, position = np.unique(tree_ids * stride + node_ids, return_inverse=True)
    leaves = np.stack([keys // stride, keys % stride], axis=1)
    ids = np.array(fields["class_ids"].ints)
    columns = 1 if _one_column(fields) else int(ids.max()) + 1
    shares = np.zeros((len(keys), columns))
    at = np.zeros_like(ids) if columns == 1 else ids
    shares[position, at] = np.array(fields["class_weights"].floats, dtype=np.float64)
    return len(np.unique(tree_ids)), leaves, shares


def _undivide(graph: Any, position: int, node: Any, trees: int) -> None:
    helper = need("onnx.helper", "converting trees")
    numpy_helper = need("onnx.numpy_helper", "converting trees")
    fields = {attribute.name: attribute for attribute in node.attribute}
    _, leaves, shares = _leaves(fields)
    whole = (shares * trees).astype(np.float32)
    if _one_column(fields):
        # Of one column the runtime makes the other as 1 - sum, which votes would turn negative.
        whole = np.concatenate([np.float32(1) - whole, whole], axis=1)
    columns = whole.shape[1]
    _set(fields["class_treeids"].ints, np.repeat(leaves[:, 0], columns))
    _set(fields["class_nodeids"].ints, np.repeat(leaves[:, 1], columns))
    _set(fields["class_ids"].ints, np.tile(np.arange(columns), len(leaves)))
    _set(fields["class_weights"].floats, whole.ravel())
    scores = node.output[1]
    votes, count = f"{scores}_votes", f"{scores}_trees"
    node.output[1] = votes
    graph.initializer.append(numpy_helper.from_array(np.array([trees], np.float32), count))
    after = [helper.make_node("Div", [votes, count], [scores])]
    if columns == 2:
        after += _first_of_largest(graph, node, fields, votes)
    for offset, extra in enumerate(after, start=1):
        graph.node.insert(position + offset, extra)


def _first_of_largest(graph: Any, node: Any, fields: dict[str, Any], votes: str) -> list[Any]:
    """The label by most votes, the first at a tie.

    Of two labels the runtime's own choice is the second one as soon as its sum is above 0.
    """
    helper = need("onnx.helper", "converting trees")
    numpy_helper = need("onnx.numpy_helper", "converting trees")
    label = node.output[0]
    labels, winner = f"{label}_names", f"{label}_index"
    node.output[0] = f"{label}_unused"
    if "classlabels_int64s" in fields and fields["classlabels_int64s"].ints:
        names = np.array(fields["classlabels_int64s"].ints, dtype=np.int64)
    else:
        texts = [text.decode() for text in fields["classlabels_strings"].strings]
        names = np.array(texts, dtype=object)
    graph.initializer.append(numpy_helper.from_array(names, labels))
    return [
        helper.make_node("ArgMax", [votes], [winner], axis=1, keepdims=0),
        helper.make_node("Gather", [labels, winner], [label], axis=0),
    ]


def _set(field: Any, values: NDArray[Any]) -> None:
    del field[:]
    field.extend(values.tolist())
