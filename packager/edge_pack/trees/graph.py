"""The ONNX graph that a forest is emitted into, node by node.

Guards: names count up and weights are kept once, so the same forest gives the same bytes.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_contract.manifest import Label
from edge_pack.extras import need

LABEL, SCORES, VALUE = "label", "probabilities", "value"
FLOAT, INT32, INT64, STRING, DOUBLE = 1, 6, 7, 8, 11
_INTS, _STRINGS = 7, 8
"""TensorProto.DataType and AttributeProto.AttributeType of onnx.proto3."""


class Graph:
    """Nodes and weights as they are added, under names that count up."""

    def __init__(self) -> None:
        self.helper = need("onnx.helper", "emitting trees")
        self.arrays = need("onnx.numpy_helper", "emitting trees")
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """A node of ai.onnx; the name of its output."""
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], fields: dict[str, Any]
    ) -> None:
        """A node of ai.onnx.ml with long attributes, which are not looked at one by one."""
        node = self.helper.make_node(kind, list(inputs), list(outputs), domain="ai.onnx.ml")
        for name in sorted(fields):
            field = fields[name]
            if isinstance(field, np.ndarray):
                attribute = node.attribute.add(name=name, type=_INTS)
                attribute.ints.extend(field.tolist())
            elif isinstance(field, list) and isinstance(field[0], str):
                attribute = node.attribute.add(name=name, type=_STRINGS)
                attribute.strings.extend(text.encode() for text in field)
            else:
                node.attribute.append(self.helper.make_attribute(name, field))
        self.nodes.append(node)

    def array(self, values: NDArray[Any]) -> Any:
        """A tensor without a name, for an attribute."""
        return self.arrays.from_array(np.ascontiguousarray(values))

    def weight(self, array: NDArray[Any], name: str) -> str:
        """A stored tensor; the name of it."""
        self.weights.setdefault(name, self.arrays.from_array(np.asarray(array), name))
        return name

    def unused(self, name: str) -> str:
        """A name for a tensor that nobody has yet."""
        return f"{name}_{len(self.nodes)}"

    def rename(self, old: str, new: str) -> None:
        """Another name for a tensor that a node makes."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == old:
                        names[i] = new


def named(graph: Graph, labels: Sequence[Label], index: Any, **attributes: Any) -> None:
    """The label of each row by the index that a node finds."""
    names = label_array(labels)
    kind, inputs = index
    if names.tolist() == list(range(len(names))):
        graph.add(kind, inputs, LABEL, axis=1, keepdims=0, **attributes)
        return
    found = graph.add(kind, inputs, axis=1, keepdims=0, **attributes)
    graph.add("Gather", [graph.weight(names, "labels"), found], LABEL, axis=0)


def label_array(labels: Sequence[Label]) -> NDArray[Any]:
    """Labels as ONNX holds them; raises BuildFault for those of no one kind."""
    if all(isinstance(label, str) for label in labels):
        return np.array(labels, dtype=object)
    if all(isinstance(label, bool | int | float) and label == int(label) for label in labels):
        return np.array([int(label) for label in labels], dtype=np.int64)
    raise BuildFault(
        f"labels such as {labels[0]!r} and {labels[-1]!r} are neither all text nor whole numbers",
        advice="Train with labels of one kind.",
    )
