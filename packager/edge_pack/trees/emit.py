"""A ``Forest`` as one ONNX graph: ai.onnx 17, and ai.onnx.ml 3 or 5 for the trees themselves.

Guards: totals are added up in float64 wherever the runtime can, and a label is chosen by their
sign or order before they are rounded, so that it ties as the original ties; every comparison is
with the exact cut (``cuts``). The same forest gives the same bytes.

Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from edge_contract.manifest import Outputs, Tensor
from edge_pack.graphs import GRAPH_NAME
from edge_pack.intake import INPUT, Column
from edge_pack.runtimes import TARGET_ML, V5_ML
from edge_pack.trees import cuts, emit_v3, emit_v5
from edge_pack.trees.columns import Derived, derive
from edge_pack.trees.form import ABOVE_ZERO, Codes, Forest, Link, Rounding
from edge_pack.trees.graph import (
    DOUBLE,
    FLOAT,
    INT32,
    INT64,
    LABEL,
    SCORES,
    STRING,
    VALUE,
    Graph,
    named,
)

TEXT = "text"
"""The tensor of all text columns; ``INPUT`` is that of all numbers."""
_ONNX, _IR = 17, 8


class Operators(Protocol):
    """The nodes of trees, as one version of ai.onnx.ml has them."""

    def totals(self, graph: Graph, forest: Forest, rows: str) -> str:
        """float32 [rows, outputs], added up in float64 and rounded once."""
        ...

    def many_labels(self, graph: Graph, forest: Forest, rows: str) -> str:
        """The same, and ``LABEL``: the first of the largest in float64."""
        ...


_OPERATORS: dict[int, Operators] = {TARGET_ML: emit_v3, V5_ML: emit_v5}


@dataclass(frozen=True)
class Emitted:
    """An ONNX model, its input tensors, and what its outputs are called."""

    proto: Any
    tensors: tuple[Tensor, ...]
    outputs: tuple[str, ...]


def emit(
    forest: Forest,
    columns: Sequence[Column],
    unread: Collection[str] = frozenset(),
    *,
    ml: int = TARGET_ML,
) -> Emitted:
    """The forest over raw ``columns``, of which text goes in as text.

    Args:
        unread: names of columns that the model drops; no tensor holds them.
        ml: the version of ai.onnx.ml, 3 or 5.

    Raises BuildFault for labels that ONNX cannot carry, or text compared with a number.
    """
    read = [i for i, column in enumerate(columns) if column.name not in unread]
    texts = [i for i in read if columns[i].text]
    derived = derive(forest, [i for i in read if not columns[i].text], texts)
    graph = Graph()
    tensors = _inputs(columns, derived)
    names = body(graph, derived, ml=ml)
    return Emitted(_model(graph, tensors, forest, names, ml), tensors, names)


def body(
    graph: Graph,
    derived: Derived,
    numbers: str = INPUT,
    *,
    raw_scores: bool = False,
    ml: int = TARGET_ML,
) -> tuple[str, ...]:
    """The nodes from the input tensors on; the names of the outputs.

    Args:
        numbers: name of the float64 tensor of the numbers.
        raw_scores: totals instead of probabilities; of two labels minus and plus the total.
    """
    forest, trees = cuts.as_float64(derived.forest), _OPERATORS[ml]
    rows = _columns(graph, derived, numbers)
    if not forest.labels:
        _linked(graph, forest.link, trees.totals(graph, forest, rows), VALUE)
        return (VALUE,)
    if len(forest.labels) > 2:
        scores = trees.many_labels(graph, forest, rows)
    elif _has_margin(forest):
        scores = _two_labels(graph, trees, forest, rows, raw_scores=raw_scores)
    else:
        scores = _first_of_largest(graph, trees, forest, rows)
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
    places: dict[Codes, str] = {}
    parts = [_ranks(graph, derived, i, numbers, places) for i in range(len(derived.tables))]
    if not parts:
        return numbers
    if any(table.ranks.dtype == np.int32 for table in derived.tables):
        parts = [
            name if table.ranks.dtype == np.int32 else graph.add("Cast", [name], to=INT32)
            for name, table in zip(parts, derived.tables, strict=True)
        ]
    joined = graph.add("Concat", parts, axis=1) if len(parts) > 1 else parts[0]
    ranks = graph.add("Cast", [joined], to=DOUBLE)
    return graph.add("Concat", [numbers, ranks], axis=1) if derived.numbers else ranks


def _place(graph: Graph, derived: Derived, codes: Codes, places: dict[Codes, str]) -> str:
    """The codes int64 [rows] of a column of text, or of a combination of several.

    Args:
        places: those that stand in the graph already.
    """
    if codes.parts:
        joined, *others = (_place(graph, derived, part, places) for part in codes.parts)
        for part, name in zip(codes.parts[1:], others, strict=True):
            size = graph.weight(np.array(part.size), f"codes_{part.raw}")
            joined = graph.add("Add", [graph.add("Mul", [joined, size]), name])
        return joined
    if codes not in places:
        at = graph.weight(np.array(derived.texts.index(codes.raw)), f"text_{codes.raw}")
        picked = graph.add("Gather", [TEXT, at], axis=1)
        places[codes] = graph.add(
            "LabelEncoder",
            [picked],
            domain="ai.onnx.ml",
            keys_strings=[*codes.known, ""],
            values_int64s=[*range(len(codes.known)), codes.missing],
            default_int64=codes.unknown,
        )
    return places[codes]


def _ranks(
    graph: Graph, derived: Derived, number: int, numbers: str, places: dict[Codes, str]
) -> str:
    """The ranks [rows, columns] of one coded column."""
    codes, ranks = derived.tables[number].codes, derived.tables[number].ranks
    if codes.text:
        place = _place(graph, derived, codes, places)
        table = graph.weight(ranks, f"ranks_{number}")
        return graph.add("Gather", [table, place], axis=0)
    # Comparing finds numbers exactly; one that equals none is at 0, a missing one at the end.
    at = graph.weight(np.array([derived.numbers.index(codes.raw)]), f"number_{codes.raw}")
    picked = _rounded(graph, graph.add("Gather", [numbers, at], axis=1), codes.rounding)
    known = graph.weight(np.array(codes.known, dtype=np.float64), f"known_{number}")
    same = graph.add("Equal", [picked, known])
    hits = graph.add("Concat", [same, graph.add("IsNaN", [picked])], axis=1)
    ordinals = graph.weight(
        np.arange(1, len(codes.known) + 2, dtype=np.float32), f"places_{number}"
    )
    place = graph.add("MatMul", [graph.add("Cast", [hits], to=FLOAT), ordinals])
    order = [codes.unknown, *range(len(codes.known)), codes.missing]
    table = graph.weight(ranks[order], f"ranks_{number}")
    return graph.add("Gather", [table, graph.add("Cast", [place], to=INT64)], axis=0)


def _rounded(graph: Graph, picked: str, rounding: Rounding) -> str:
    """A column of float64 as it is looked up."""
    if rounding == "exact":
        return picked
    if rounding == "float32 down":
        lower = graph.add("Floor", [graph.add("Cast", [picked], to=FLOAT)])
        return graph.add("Cast", [lower], to=DOUBLE)
    size = graph.add("Floor", [graph.add("Abs", [picked])])
    return graph.add("Mul", [graph.add("Sign", [picked]), size])


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


def _two_labels(
    graph: Graph, trees: Operators, forest: Forest, rows: str, *, raw_scores: bool
) -> str:
    """The label by the sign of one total, which float32 keeps however small it is."""
    one = _margin(forest)
    moved = one.threshold not in (0.0, ABOVE_ZERO)
    base = one.base - one.threshold if moved else one.base
    total = trees.totals(graph, replace(one, base=base), rows)
    sides = graph.weight(np.array([[-1, 1]], np.float32), "sides")
    both = graph.add("MatMul", [total, sides])
    tied = int(one.threshold != ABOVE_ZERO)
    named(graph, forest.labels, ["ArgMax", [both]], select_last_index=tied)
    if moved:
        back = np.array([-one.threshold, one.threshold], np.float32)
        both = graph.add("Add", [both, graph.weight(back, "threshold")])
    if one.link != "identity" or raw_scores or not forest.probabilities:
        return both
    if forest.outputs == 2:  # shares, of which the total is the difference
        half = graph.weight(np.array(0.5, np.float32), "half")
        return graph.add("Add", [graph.add("Mul", [both, half]), half])
    return graph.add("Add", [both, graph.weight(np.array([1, 0], np.float32), "rest")])


def _first_of_largest(graph: Graph, trees: Operators, forest: Forest, rows: str) -> str:
    totals = trees.totals(graph, forest, rows)
    named(graph, forest.labels, ["ArgMax", [totals]])
    return totals


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


def _model(
    graph: Graph, tensors: Sequence[Tensor], forest: Forest, names: Sequence[str], ml: int
) -> Any:
    make = graph.helper.make_tensor_value_info
    kinds = {"float64": DOUBLE, "float32": FLOAT, "string": STRING}
    inputs = [make(t.name, kinds[t.dtype], ["rows", t.shape[1]]) for t in tensors]
    outputs = []
    for name in names:
        if name == LABEL:
            text = isinstance(forest.labels[0], str)
            outputs.append(make(name, STRING if text else INT64, ["rows"]))
        else:
            columns = len(forest.labels) if name == SCORES else forest.outputs
            outputs.append(make(name, FLOAT, ["rows", columns]))
    opsets = [("ai.onnx.ml", ml)] + [("", _ONNX)] * any(not n.domain for n in graph.nodes)
    return graph.helper.make_model(
        graph.helper.make_graph(
            graph.nodes, GRAPH_NAME, inputs, outputs, list(graph.weights.values())
        ),
        opset_imports=[graph.helper.make_opsetid(*pair) for pair in sorted(opsets)],
        ir_version=_IR,
        producer_name="edge-pack",
    )
