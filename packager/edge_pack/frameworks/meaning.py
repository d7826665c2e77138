"""What a network's output tensors mean: read off the graph's end, or as the user declares it.

Guards: no task is guessed. A Softmax at the end makes probabilities of one label among several, a
Sigmoid on one column the probability of the second of two; a label a row beside float columns is
a classifier; one float column is a regression; all else stays plain tensors, unless ``--task``
says what it is. Labels that nobody names are 0, 1, ...; a build stops at an answer that is none of
them. Logits that are declared a classifier get the missing Softmax or Sigmoid in the graph, and in
float64 on the original's side.

Pure: protos and arrays in, facts and changed protos out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge_contract.errors import BuildFault, InputFault
from edge_contract.manifest import Label, Outputs, Task
from edge_pack.answers import Answers, of_tensors
from edge_pack.config import DeclaredTask
from edge_pack.extras import need

Arrays = Mapping[str, NDArray[Any]]
Ending = Literal["", "softmax", "sigmoid", "pair"]
"""What the bundle's graph has behind the original's: ``pair`` makes [1 - p, p] of p; ``sigmoid``
does that behind a sigmoid."""

PROBABILITIES = "probabilities"
_LOGITS = (
    "no Softmax ends the model, so its output stays a plain tensor, without labels or a profile of "
    "predictions; if it is the logits of a classifier: --task classification --labels a,b,..."
)


@dataclass(frozen=True)
class Declared:
    """What the user says of a network's outputs; "" and () leave it to the graph."""

    task: DeclaredTask = ""
    labels: tuple[Label, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.task or self.labels)


UNDECLARED = Declared()


@dataclass(frozen=True)
class Meaning:
    """What the outputs are.

    Attributes:
        raw: the one output tensor of the original that ``ending`` continues, or "".
        outputs: of the bundle, its graph's ending included.
        note: what the user may want to declare, or "".
    """

    task: Task
    outputs: Outputs
    ending: Ending = ""
    raw: str = ""
    note: str = ""

    def read(self, found: Arrays) -> Answers:
        """The original's answers, from its own output tensors."""
        if not self.ending:
            return of_tensors(found, self.outputs)
        logits = np.asarray(found[self.raw], dtype=np.float64)
        if self.ending == "softmax":
            shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = shifted / shifted.sum(axis=1, keepdims=True)
        else:
            column = logits.reshape(len(logits), 1)
            if self.ending == "sigmoid":
                with np.errstate(over="ignore"):
                    column = 1 / (1 + np.exp(-column))
            scores = np.hstack([1 - column, column])
        return Answers(np.argmax(scores, axis=1).astype(np.int64), scores)


def of_outputs(
    proto: Any, sample: Arrays, declared: Declared, labels: Sequence[Label], *, by_row: bool
) -> Meaning:
    """The meaning of a graph's outputs.

    Args:
        sample: what it answered to some rows: shapes that the graph does not state.
        labels: as a classifier node declares them, or ().
        by_row: the first axis of every output is rows.

    Raises:
        InputFault: the declared task or labels do not fit the outputs.
        BuildFault: an output is no tensor.
    """
    for value in proto.graph.output:
        if not value.type.HasField("tensor_type"):
            raise BuildFault(
                f"output {value.name!r} is no tensor", advice="Export with plain tensors."
            )
    names = tuple(value.name for value in proto.graph.output)
    found = _Found(proto, names, sample, tuple(declared.labels or labels), by_row)
    if declared.task:
        return _declared(found, declared)
    return _shown(found)


@dataclass(frozen=True)
class _Found:
    proto: Any
    names: tuple[str, ...]
    sample: Arrays
    labels: tuple[Label, ...]
    by_row: bool

    @property
    def floats(self) -> list[str]:
        return [name for name in self.names if self.sample[name].dtype.kind == "f"]

    def columns(self, name: str) -> int:
        """Columns of a [rows, columns] output, 1 for [rows], 0 for any other shape."""
        shape = self.sample[name].shape
        if not self.by_row or len(shape) not in (1, 2):
            return 0
        return shape[1] if len(shape) == 2 else 1

    def maker(self, name: str) -> str:
        """The operator that makes an output, seen through those that change no value."""
        makers = {made: node for node in self.proto.graph.node for made in node.output}
        while name in makers:
            node = makers[name]
            if node.op_type not in ("Identity", "Cast"):
                return str(node.op_type)
            name = node.input[0]
        return ""


def _shown(found: _Found) -> Meaning:
    tensors = Outputs(tensors=found.names)
    floats, marks = found.floats, [n for n in found.names if _is_mark(found, n)]
    if len(found.names) == 2 and len(floats) == len(marks) == 1:
        width = found.columns(floats[0])
        labels = found.labels or tuple(range(width))
        if width and width == len(labels):
            return Meaning(
                "classification",
                Outputs(tensors=found.names, label=marks[0], scores=floats[0], labels=labels),
            )
    if len(found.names) == len(floats) == 1:
        (name,) = found.names
        width, maker = found.columns(name), found.maker(name)
        if width == 1 and maker == "Sigmoid":
            return _classifier(found, name, "pair", 2)
        if width == 1 and maker != "Softmax":
            return Meaning("regression", Outputs(tensors=found.names, value=name))
        if width > 1 and maker == "Softmax":
            return _classifier(found, name, "", width)
        if width > 1:
            return Meaning("tensors", tensors, note=_LOGITS)
    return Meaning("tensors", tensors)


def _is_mark(found: _Found, name: str) -> bool:
    """Whether an output holds one label a row."""
    array = found.sample[name]
    return array.dtype.kind in "iOU" and array.ndim <= 1


def _declared(found: _Found, declared: Declared) -> Meaning:
    candidates = [name for name in found.floats if found.columns(name)]
    if len(candidates) != 1:
        shapes = ", ".join(f"{name!r} {list(found.sample[name].shape)}" for name in found.names)
        raise InputFault(
            f"--task {declared.task} needs one output with columns of numbers a row, the model "
            f"has {shapes}",
            advice="Leave --task out: the outputs then stay plain tensors. Or export the model "
            "with that one output.",
        )
    (name,) = candidates
    width, maker = found.columns(name), found.maker(name)
    if declared.task == "regression":
        if width != 1:
            raise InputFault(
                f"--task regression: the output {name!r} has {width} columns, not 1",
                advice="Leave --task out: the outputs then stay plain tensors.",
            )
        return Meaning("regression", Outputs(tensors=found.names, value=name))
    if width == 1:
        return _classifier(found, name, "pair" if maker == "Sigmoid" else "sigmoid", 2)
    return _classifier(found, name, "" if maker == "Softmax" else "softmax", width)


def _classifier(found: _Found, name: str, ending: Ending, count: int) -> Meaning:
    labels = found.labels or tuple(range(count))
    if len(labels) != count:
        raise InputFault(
            f"{len(labels)} labels ({', '.join(map(str, labels[:8]))}) for an output that tells "
            f"{count} apart",
            advice="Name one label for each output column; two for one column.",
        )
    scores = PROBABILITIES if ending else name
    while ending and scores in found.names:
        scores += "_"
    names = tuple(scores if other == name else other for other in found.names)
    return Meaning(
        "classification", Outputs(tensors=names, scores=scores, labels=labels), ending, name
    )


def finish(proto: Any, meaning: Meaning, sample: Arrays) -> None:
    """Put the meaning's ending behind the graph, in place. ``sample``: as in ``of_outputs``."""
    if not meaning.ending:
        return
    helper = need("onnx.helper", "building a network")
    numpy_helper = need("onnx.numpy_helper", "building a network")
    graph, scores = proto.graph, meaning.outputs.scores
    array = sample[meaning.raw]
    name, inner, nodes = meaning.raw, f"{scores}_of", []
    if meaning.ending == "softmax":
        nodes = [helper.make_node("Softmax", [name], [scores], axis=1)]
    else:
        graph.initializer.extend(
            [
                numpy_helper.from_array(np.array([-1, 1], np.int64), f"{inner}_column"),
                numpy_helper.from_array(np.ones(1, array.dtype), f"{inner}_one"),
            ]
        )
        nodes.append(helper.make_node("Reshape", [name, f"{inner}_column"], [f"{inner}_raw"]))
        second = f"{inner}_raw"
        if meaning.ending == "sigmoid":
            second = f"{inner}_second"
            nodes.append(helper.make_node("Sigmoid", [f"{inner}_raw"], [second]))
        nodes.append(helper.make_node("Sub", [f"{inner}_one", second], [f"{inner}_first"]))
        nodes.append(helper.make_node("Concat", [f"{inner}_first", second], [scores], axis=1))
    graph.node.extend(nodes)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    made = helper.make_tensor_value_info(scores, kind, ["rows", len(meaning.outputs.labels)])
    for value in graph.output:
        if value.name == name:
            value.CopyFrom(made)
