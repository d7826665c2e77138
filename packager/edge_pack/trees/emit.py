"""A ``Forest`` as one ONNX graph: ai.onnx.ml 3 and ai.onnx 17, which every runtime since 1.15 has.

Guards: totals are added up in float64 wherever the runtime can, and a label is chosen by their
sign or order before they are rounded, so that it ties as the original ties; every comparison is
with the exact cut (``cuts``). The same forest gives the same bytes.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault
from edge_contract.manifest import Outputs, Tensor
from edge_pack.extras import need
from edge_pack.graphs import GRAPH_NAME
from edge_pack.intake import INPUT, Column
from edge_pack.trees import cuts
from edge_pack.trees.columns import Derived, derive
from edge_pack.trees.form import ABOVE_ZERO, Forest, Ints, Link

LABEL, SCORES, VALUE = "label", "probabilities", "value"
TEXT = "text"
"""The tensor of all text columns; ``INPUT`` is that of all numbers."""
_ONNX, _ML, _IR = 17, 3, 8
_FLOAT, _INT32, _INT64, _STRING, DOUBLE = 1, 6, 7, 8, 11
_INTS, _STRINGS = 7, 8
"""TensorProto.DataType and AttributeProto.AttributeType of onnx.proto3."""


@dataclass(frozen=True)
class Emitted:
    """An ONNX model, its input tensors, and what its outputs are called."""

    proto: Any
    tensors: tuple[Tensor, ...]
    outputs: tuple[str, ...]


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


def emit(
    forest: Forest, columns: Sequence[Column], unread: Collection[str] = frozenset()
) -> Emitted:
    """The forest over raw ``columns``, of which text goes in as text.

    Args:
        unread: names of columns that the model drops; no tensor holds them.

    Raises BuildFault for labels that ONNX cannot carry, or text compared with a number.
    """
    read = [i for i, column in enumerate(columns) if column.name not in unread]
    texts = [i for i in read if columns[i].text]
    derived = derive(forest, [i for i in read if not columns[i].text], texts)
    graph = Graph()
    tensors = _inputs(columns, derived)
    names = body(graph, derived)
    return Emitted(_model(graph, tensors, forest, names), tensors, names)


def body(
    graph: Graph, derived: Derived, numbers: str = INPUT, *, raw_scores: bool = False
) -> tuple[str, ...]:
    """The nodes from the input tensors on; the names of the outputs.

    Args:
        numbers: name of the float64 tensor of the numbers.
        raw_scores: totals instead of probabilities; of two labels minus and plus the total.
    """
    forest = cuts.as_float64(derived.forest)
    rows = _columns(graph, derived, numbers)
    if not forest.labels:
        _linked(graph, forest.link, _totals(graph, forest, rows), VALUE)
        return (VALUE,)
    if len(forest.labels) > 2:
        scores = _many_labels(graph, forest, rows)
    elif _has_margin(forest):
        scores = _two_labels(graph, forest, rows, raw_scores=raw_scores)
    else:
        scores = _first_of_largest(graph, forest, rows)
    if not forest.probabilities:
        return (LABEL,)
    _linked(graph, "identity" if raw_scores else _link_of_scores(forest), scores, SCORES)
    return (LABEL, SCORES)


def _link_of_scores(forest: Forest) -> Link:
    """Two softmax totals become one, and its link the sigmoid."""
    two = len(forest.labels) == 2 and forest.link == "softmax"
    return "sigmoid" if two else forest.link


def outputs_of(forest: Forest) -> Outputs:
    """What the emitted model's outputs mean."""
    if forest.labels:
        scores = SCORES if forest.probabilities else ""
        names = (LABEL, SCORES) if scores else (LABEL,)
        return Outputs(tensors=names, label=LABEL, scores=scores, labels=forest.labels)
    return Outputs(tensors=(VALUE,), value=VALUE if forest.outputs == 1 else "")


def _inputs(columns: Sequence[Column], derived: Derived) -> tuple[Tensor, ...]:
    """One tensor of all numbers and one of all text that is read."""
    numbers = tuple(columns[i].name for i in derived.numbers)
    texts = tuple(columns[i].name for i in derived.texts)
    tensors = [
        Tensor(name=INPUT, dtype="float64", shape=(None, len(numbers)), features=numbers),
        Tensor(name=TEXT, dtype="string", shape=(None, len(texts)), features=texts),
    ]
    return tuple(tensor for tensor in tensors if tensor.features)


def _columns(graph: Graph, derived: Derived, numbers: str) -> str:
    """The tensor [rows, width] that the trees ask."""
    parts = [_ranks(graph, derived, i, numbers) for i in range(len(derived.tables))]
    if not parts:
        return numbers
    if any(table.ranks.dtype == np.int32 for table in derived.tables):
        parts = [
            name if table.ranks.dtype == np.int32 else graph.add("Cast", [name], to=_INT32)
            for name, table in zip(parts, derived.tables, strict=True)
        ]
    joined = graph.add("Concat", parts, axis=1) if len(parts) > 1 else parts[0]
    ranks = graph.add("Cast", [joined], to=DOUBLE)
    return graph.add("Concat", [numbers, ranks], axis=1) if derived.numbers else ranks


def _ranks(graph: Graph, derived: Derived, number: int, numbers: str) -> str:
    """The ranks [rows, columns] of one coded column."""
    codes, ranks = derived.tables[number].codes, derived.tables[number].ranks
    if codes.text:
        at = graph.weight(np.array(derived.texts.index(codes.raw)), f"text_{codes.raw}")
        picked = graph.add("Gather", [TEXT, at], axis=1)
        place = graph.add(
            "LabelEncoder",
            [picked],
            domain="ai.onnx.ml",
            keys_strings=[*codes.known, ""],
            values_int64s=[*range(len(codes.known)), codes.missing],
            default_int64=codes.unknown,
        )
        table = graph.weight(ranks, f"ranks_{number}")
        return graph.add("Gather", [table, place], axis=0)
    # Comparing finds numbers exactly; one that equals none is at 0, a missing one at the end.
    at = graph.weight(np.array([derived.numbers.index(codes.raw)]), f"number_{codes.raw}")
    picked = graph.add("Gather", [numbers, at], axis=1)
    known = graph.weight(np.array(codes.known, dtype=np.float64), f"known_{number}")
    same = graph.add("Equal", [picked, known])
    hits = graph.add("Concat", [same, graph.add("IsNaN", [picked])], axis=1)
    places = graph.weight(np.arange(1, len(codes.known) + 2, dtype=np.float32), f"places_{number}")
    place = graph.add("MatMul", [graph.add("Cast", [hits], to=_FLOAT), places])
    order = [codes.unknown, *range(len(codes.known)), codes.missing]
    table = graph.weight(ranks[order], f"ranks_{number}")
    return graph.add("Gather", [table, graph.add("Cast", [place], to=_INT64)], axis=0)


def _has_margin(forest: Forest) -> bool:
    """Whether two labels hang on one total: an only one, or the difference of two."""
    if len(forest.labels) != 2 or forest.outputs == 1:
        return len(forest.labels) == 2
    shares = forest.values[forest.leaf]
    averaged = forest.divisor == forest.trees and shares.shape[1] == 2 and not forest.base.any()
    whole = averaged and bool(np.allclose(shares.sum(axis=1), 1, rtol=0, atol=1e-12))
    return forest.link == "softmax" or (forest.link == "identity" and whole)


def _margin(forest: Forest) -> Forest:
    """One total where there were two: the second label's less the first's.

    Whole votes are exact in float64, so is their difference, and a tie is 0.
    """
    if forest.outputs == 1:
        return forest
    if forest.values.shape[1] == 2:
        values = forest.values[:, 1:] - forest.values[:, :1]
    else:
        values = np.where(forest.target[forest.tree, None] == 1, forest.values, -forest.values)
    return replace(
        forest,
        values=values,
        base=forest.base[1:] - forest.base[:1],
        outputs=1,
        target=np.zeros(forest.trees, dtype=np.int64),
        link="sigmoid" if forest.link == "softmax" else "identity",
        threshold=ABOVE_ZERO,
    )


def _two_labels(graph: Graph, forest: Forest, rows: str, *, raw_scores: bool) -> str:
    """The label by the sign of one total, which float32 keeps however small it is."""
    one = _margin(forest)
    moved = one.threshold not in (0.0, ABOVE_ZERO)
    base = one.base - one.threshold if moved else one.base
    total = _totals(graph, replace(one, base=base), rows)
    sides = graph.weight(np.array([[-1, 1]], np.float32), "sides")
    both = graph.add("MatMul", [total, sides])
    tied = int(one.threshold != ABOVE_ZERO)
    _named(graph, forest, ["ArgMax", [both]], select_last_index=tied)
    if moved:
        back = np.array([-one.threshold, one.threshold], np.float32)
        both = graph.add("Add", [both, graph.weight(back, "threshold")])
    if one.link != "identity" or raw_scores or not forest.probabilities:
        return both
    if forest.outputs == 2:  # shares, of which the total is the difference
        half = graph.weight(np.array(0.5, np.float32), "half")
        return graph.add("Add", [graph.add("Mul", [both, half]), half])
    return graph.add("Add", [both, graph.weight(np.array([1, 0], np.float32), "rest")])


def _many_labels(graph: Graph, forest: Forest, rows: str) -> str:
    """The classifier node chooses among totals of float64, the first of the largest."""
    labels = _label_array(forest.labels)
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


def _first_of_largest(graph: Graph, forest: Forest, rows: str) -> str:
    totals = _totals(graph, forest, rows)
    _named(graph, forest, ["ArgMax", [totals]])
    return totals


def _named(graph: Graph, forest: Forest, index: Any, **attributes: Any) -> None:
    """The label of each row by the index that a node finds."""
    labels = _label_array(forest.labels)
    kind, inputs = index
    if labels.tolist() == list(range(len(labels))):
        graph.add(kind, inputs, LABEL, axis=1, keepdims=0, **attributes)
        return
    found = graph.add(kind, inputs, axis=1, keepdims=0, **attributes)
    graph.add("Gather", [graph.weight(labels, "labels"), found], LABEL, axis=0)


def _label_array(labels: Sequence[Any]) -> NDArray[Any]:
    if all(isinstance(label, str) for label in labels):
        return np.array(labels, dtype=object)
    if all(isinstance(label, bool | int | float) and label == int(label) for label in labels):
        return np.array([int(label) for label in labels], dtype=np.int64)
    raise BuildFault(
        f"labels such as {labels[0]!r} and {labels[-1]!r} are neither all text nor whole numbers",
        advice="Train with labels of one kind.",
    )


def _linked(graph: Graph, link: Link, totals: str, output: str) -> None:
    """The link, and the output's name."""
    if link == "identity":
        graph.rename(totals, output)
    elif link == "softmax":
        graph.add("Softmax", [totals], output, axis=1)
    elif link == "signed_square":
        graph.add("Mul", [totals, graph.add("Abs", [totals])], output)
    else:
        graph.add({"sigmoid": "Sigmoid", "exp": "Exp", "log1p_exp": "Softplus"}[link],
                  [totals], output)  # fmt: skip


def _totals(graph: Graph, forest: Forest, rows: str) -> str:
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


def _model(graph: Graph, tensors: Sequence[Tensor], forest: Forest, names: Sequence[str]) -> Any:
    make = graph.helper.make_tensor_value_info
    kinds = {"float64": DOUBLE, "float32": _FLOAT, "string": _STRING}
    inputs = [make(t.name, kinds[t.dtype], ["rows", t.shape[1]]) for t in tensors]
    outputs = []
    for name in names:
        if name == LABEL:
            text = isinstance(forest.labels[0], str)
            outputs.append(make(name, _STRING if text else _INT64, ["rows"]))
        else:
            columns = len(forest.labels) if name == SCORES else forest.outputs
            outputs.append(make(name, _FLOAT, ["rows", columns]))
    opsets = [("ai.onnx.ml", _ML)] + [("", _ONNX)] * any(not n.domain for n in graph.nodes)
    return graph.helper.make_model(
        graph.helper.make_graph(
            graph.nodes, GRAPH_NAME, inputs, outputs, list(graph.weights.values())
        ),
        opset_imports=[graph.helper.make_opsetid(*pair) for pair in sorted(opsets)],
        ir_version=_IR,
        producer_name="edge-pack",
    )
