"""How much memory a model's session takes: an estimate from its graph, the same everywhere. Pure.

Measured on x86-64: resident memory after load is 14 to 18 times the bytes of tree nodes, and
about twice the float32 weights of dense layers; what is stored in int8 or float16 and cast to
float32 by the graph unfolds to that at load.
"""

from __future__ import annotations

from typing import Any

from edge_pack.graphs import every_node

TREE_FACTOR = 18
DENSE_FACTOR = 2
SESSION_BYTES = 2 * 1024**2
"""Arenas and bookkeeping of an empty session."""

_UNFOLDS = {3: 3, 10: 1}
"""TensorProto.DataType INT8 and FLOAT16 -> bytes that each stored byte gains as float32."""


def estimate(proto: Any) -> int:
    """Bytes beyond a process that has imported the runtime."""
    trees = sum(
        node.ByteSize() for node in every_node(proto) if node.op_type.startswith("TreeEnsemble")
    )
    cast = {node.input[0] for node in proto.graph.node if node.op_type == "Cast"}
    unfolded = sum(
        _UNFOLDS.get(item.data_type, 0) * len(item.raw_data)
        for item in proto.graph.initializer
        if item.name in cast
    )
    rest = max(proto.ByteSize() - trees, 0) + unfolded
    return int(SESSION_BYTES + TREE_FACTOR * trees + DENSE_FACTOR * rest)
